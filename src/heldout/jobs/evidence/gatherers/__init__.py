"""One kind of evidence a file; the file system is the registry."""
