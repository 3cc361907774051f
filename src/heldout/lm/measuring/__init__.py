"""What models are measured by: each file reads models and texts, and trains nothing."""
