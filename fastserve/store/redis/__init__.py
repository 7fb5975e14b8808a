"""The Redis store: a server or a cluster, reached by redis-py; on the hot path by a connection of our own."""
