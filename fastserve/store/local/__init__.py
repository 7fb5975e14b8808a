"""The embedded store: rows in an LMDB environment, a folder on this machine that all processes share."""
