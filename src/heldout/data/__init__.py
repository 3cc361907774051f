"""Reading rows, finding duplicates, splitting without leaks."""
