"""``heldout recipe``: settings for other trainers."""
