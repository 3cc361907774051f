"""A package with a probe that gathers evidence of its own."""
