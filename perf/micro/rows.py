"""Rows from base64 text to numbers: joined and decoded at once, or one by one.

Run as `python -m perf.micro.rows`. The rows are those of 50 views with 100 float64 look-ups.
"""

from __future__ import annotations

import base64

import numpy as np
import pybase64

from perf.micro.timing import show

ROWS = 50
ROW_BYTES = 816


def main() -> None:
    """Print the figures."""
    texts = [base64.b64encode(np.random.default_rng(row).bytes(ROW_BYTES)).decode() for row in range(ROWS)]

    def joined() -> object:
        return np.frombuffer(pybase64.b64decode("".join(texts), validate=True), "<f8").reshape(ROWS, -1)

    def joined_without_validation() -> object:
        return np.frombuffer(pybase64.b64decode("".join(texts)), "<f8").reshape(ROWS, -1)

    def one_by_one() -> object:
        return [np.frombuffer(pybase64.b64decode(text, validate=True), "<f8") for text in texts]

    def standard_library() -> object:
        return [np.frombuffer(base64.b64decode(text), "<f8") for text in texts]

    show(f"{ROWS} rows joined, decoded, viewed", joined)
    show("the same, passing over characters that aren't base64", joined_without_validation)
    show(f"{ROWS} rows decoded one by one", one_by_one)
    show(f"{ROWS} rows decoded one by one by the standard library", standard_library)


if __name__ == "__main__":
    main()
