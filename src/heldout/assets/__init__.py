"""Files that the package ships.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
