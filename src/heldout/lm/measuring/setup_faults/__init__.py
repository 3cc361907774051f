"""Faults of a training setup that look like overfitting, one a file."""
