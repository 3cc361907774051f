"""A package a family of commands, on a common kit.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
