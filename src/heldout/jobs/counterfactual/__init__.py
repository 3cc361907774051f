"""``heldout counterfactual``: which rows a model knows only because it was trained on them."""
