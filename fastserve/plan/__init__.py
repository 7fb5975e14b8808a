"""Definitions compiled for the hot path: keys, row layouts, output order. Pure."""
