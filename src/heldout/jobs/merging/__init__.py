"""``heldout merge``: adapter and base as one model, and a file for llama.cpp."""
