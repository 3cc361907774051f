"""The vocabulary: recipes, runs, measurements, errors; no torch.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
