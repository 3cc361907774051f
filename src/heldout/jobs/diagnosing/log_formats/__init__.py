"""One file per format of a training log: the folder is the registry.

Each has ``READS``, what it is called where a log is not known; ``PLACES``, where such logs lie
within a folder; and ``read(path, head)``, which gives a ``RawLog``, or None for what is none of its
own by the first bytes, whatever its name.
"""
