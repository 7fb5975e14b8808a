"""Parts of a request beside what they took on the reference machine: `python -m perf.micro.machine`.

The machine factor of `perf table` compares two servers by two hands. These parts are calls of libraries that
leave a hand little, so their quotients say how much of that factor is the machine and the libraries' versions
(the reference's versions and its numbers' distribution weren't written down). All for 50 views of 100
float64; there the bytes alone, in and out, took 42 us: here that is the floor of `lookups_50x100`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson
import pybase64

from perf.bare import Signer
from perf.data import row_texts, service_plan
from perf.micro.timing import least_us

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = 5_000
NUMPY = orjson.OPT_SERIALIZE_NUMPY


def main() -> None:
    """Print the figures."""
    random = np.random.default_rng(1)
    floats = random.random(VALUES) * 1_000
    ints = random.integers(0, 1_000, VALUES)
    texts = {
        place.view.table: row_texts(place.view)[0] or "" for place in service_plan("lookups_50x100").places
    }
    items = {table: [{"k": {"S": "user00000000"}, "v": {"B": text}}] for table, text in texts.items()}
    answer = orjson.dumps({"Responses": items, "UnprocessedKeys": {}})
    signer, body = Signer("127.0.0.1:8000"), b"x" * 3_000

    def row_by_row() -> object:
        return b"".join([pybase64.b64decode(text, validate=True) for text in texts.values()])

    show("orjson.dumps of 5,000 float64 from NumPy", lambda: orjson.dumps(floats, option=NUMPY), 76)
    show("orjson.dumps of 5,000 int64 from NumPy", lambda: orjson.dumps(ints, option=NUMPY), 15)
    show("orjson.loads of the store's answer", lambda: orjson.loads(answer), 25)
    show("base64 of 50 rows, one by one", row_by_row, 28)
    show("signature of a call", lambda: signer.head(body), 5)


def show(what: str, function: Callable[[], object], reference_us: float) -> None:
    """Print what a call takes here, there, and the quotient."""
    here_us = least_us(function)
    print(f"{what:42} {here_us:7.1f} us {reference_us:6g} us there {here_us / reference_us:6.2f}")


if __name__ == "__main__":
    main()
