"""``heldout plan laws``, ``advise`` and ``capacity``: what more data and parameters bring."""
