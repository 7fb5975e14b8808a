"""Measurements: what a request costs, beside the least it could cost. See perf/README.md."""
