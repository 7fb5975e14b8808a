"""Ways to write a vector as JSON: whole arrays, runs of arrays, single tokens, Python objects.

Run as `python -m perf.micro.encode`. Figures per value.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import numpy as np
import orjson

from fastserve.api.float_text import by_orjson, float_array
from perf.micro.timing import show

VALUES = 5_000
RUN = 4
NUMPY = orjson.OPT_SERIALIZE_NUMPY


def main() -> None:
    """Print the figures."""
    random = np.random.default_rng(1)
    floats = random.random(VALUES) * 1_000
    ints = random.integers(0, 1_000_000, VALUES)
    runs = [(start, start + RUN) for start in range(0, VALUES, RUN)]
    arrange = itemgetter(*random.permutation(VALUES).tolist())

    def in_runs() -> object:
        return [float_array(floats[low:high])[1:-1] for low, high in runs]

    def in_runs_by_orjson() -> object:
        return orjson.dumps([floats[low:high] for low, high in runs], option=NUMPY)[2:-2].split(b"],[")

    def tokens() -> object:
        return b",".join(arrange(float_array(floats)[1:-1].split(b",")))

    cents = np.round(floats, 2)
    for name, values in (("random float64", floats), ("float64 with cents", cents), ("zeros", floats * 0)):
        show(f"{name}, by orjson", partial(by_orjson, values), VALUES, "ns a value")
        show(f"{name}, as served", partial(float_array, values), VALUES, "ns a value")
    show("float64 array, to Python and dumped", lambda: orjson.dumps(floats.tolist()), VALUES, "ns a value")
    show(f"float64 in runs of {RUN}", in_runs, VALUES, "ns a value")
    show(f"float64 in runs of {RUN}, by orjson", in_runs_by_orjson, VALUES, "ns a value")
    show("float64 as tokens in another order", tokens, VALUES, "ns a value")
    show("int64 array, dumped", lambda: orjson.dumps(ints, option=NUMPY), VALUES, "ns a value")
    show(
        "int64 array, dumped and quoted",
        lambda: orjson.dumps(ints, option=NUMPY).replace(b",", b'","'),
        VALUES,
        "ns a value",
    )


if __name__ == "__main__":
    main()
