"""Typed results, one command a file: everything on its page and in its JSON is here."""
