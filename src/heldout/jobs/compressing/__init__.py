"""``heldout plan compress``: how far a model that learns compresses the data."""
