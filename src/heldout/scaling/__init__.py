"""Scaling laws: mathematics on tables; no torch.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
