"""One place that knows models: load, tokenize, losses, generation.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
