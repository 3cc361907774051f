"""One measurement a file.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
