"""``heldout diagnose``: is it overfitted, why, and what to change, of a model or of a log."""
