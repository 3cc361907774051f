"""``heldout check``: findings in data, a clean copy, and what only training on it can tell."""
