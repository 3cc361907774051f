"""``heldout ensemble`` and ``heldout distill``: several models, and one that learns from them."""
