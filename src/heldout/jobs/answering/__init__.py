"""A run's model, asked."""
