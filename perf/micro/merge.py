"""Ways to merge: taking the terms of many sums out of a matrix and adding them up.

Run as `python -m perf.micro.merge`. Two vector rows with 3,750 sums of three terms each; figures per term.
"""

from __future__ import annotations

import numpy as np

from perf.micro.timing import show

LINES = 2
SUMS = 3_750
TERMS = 3


def main() -> None:
    """Print the figures."""
    matrix = np.random.default_rng(1).random((LINES, SUMS * TERMS + 6))
    index = np.arange(SUMS * TERMS).reshape(SUMS, TERMS).T.copy()
    taken = matrix.take(index, axis=1)
    starts = np.arange(0, SUMS * TERMS, TERMS)
    terms = LINES * SUMS * TERMS
    show("take with a prepared index", lambda: matrix.take(index, axis=1), terms, "ns a term")
    show("fancy indexing", lambda: matrix[:, index], terms, "ns a term")
    show("add.reduce over the terms", lambda: np.add.reduce(taken, axis=1, initial=-0.0), terms, "ns a term")
    show("add.reduceat", lambda: np.add.reduceat(matrix[:, :-6], starts, axis=1), terms, "ns a term")


if __name__ == "__main__":
    main()
