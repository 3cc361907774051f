"""Parse, call a job, print; no torch.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
