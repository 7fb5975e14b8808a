"""Lines of float64 as JSON: by our loop in C where it is compiled, else by orjson.

Printing its floats was a quarter of what a vector of 5,000 features cost, all of it in C already; the loop in
`_float_text.c` takes three fifths of orjson's time, and a third where a processor has AVX-512
(`perf/micro/encode.py`).

Invariants
1. Both ways give the same bytes for every float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import orjson

__all__ = ["by_orjson", "float_array"]


def by_orjson(line: npt.NDArray[np.float64]) -> bytes:
    """Return the JSON array of a contiguous line of float64: the twin."""
    return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY)


try:
    from fastserve.api._float_text import float_array
except ImportError:
    float_array = by_orjson
