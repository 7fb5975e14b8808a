"""Soaks: a server under faults of every kind, each of its answers judged alone."""
