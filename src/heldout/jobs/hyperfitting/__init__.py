"""``heldout hyperfit``: overfit on purpose, and know what came of it."""
