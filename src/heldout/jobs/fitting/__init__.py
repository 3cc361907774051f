"""``heldout fit``: a better checkpoint, and the report that proves it."""
