"""What probes need, gathered from models and texts, kept in a run, and judged."""
