"""The loop contract, and the one file that knows the Trainer.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""
