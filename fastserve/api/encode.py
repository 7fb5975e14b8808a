"""Columns of feature values to the JSON of the API.

One service's answer is static text around its values. Values leave in one of three ways, decided when the
service is compiled:

- all float64: one call for a line of the matrix (13 ns a value, 22 by orjson, `perf/micro/encode.py`);
- mixed types: each kind of column is dumped as a whole and cut into runs (or single tokens) which are joined
  in the answer's order;
- a line with a NaN, an infinity or a value that looks like a null marker: value by value, exactly.

Invariants
1. int64 leaves as a string, NaN and infinities as strings, null as null; a float leaves with the fewest
   digits that give it back.
2. The three ways give the same bytes wherever all can be taken.
3. Only the plan's visible inputs leave, however many stand behind them in their columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from fastserve.api.float_text import float_array
from fastserve.plan.service import ServicePlan
from fastserve.serving.columns import Columns, output_storage
from fastserve.tiles.layout import NULL_BOOL, NULL_FLOAT32_BITS, NULL_FLOAT64_BITS, NULL_INT64, Storage
from fastserve.tiles.times import format_time

NUMPY = orjson.OPT_SERIALIZE_NUMPY
NULL = b"null"
NULL_INT_TOKEN = b'"%d"' % NULL_INT64
BOOL_TOKENS = (b"false", b"true", NULL)
SHORT_RUN = 6
"""Below so many values per run on average, single tokens are cheaper than slices of arrays
(`perf/micro/encode.py`:
0.38 us a run, 0.066 us a token)."""

Parts = Callable[[Columns, int], list[bytes]]


class FeaturesEncoder:
    """Encodes lines of `Columns` as the API's ``features`` array for one service."""

    def __init__(self, plan: ServicePlan) -> None:
        outputs = plan.inputs[: plan.visible_inputs]
        self._outputs = outputs
        self._kinds = [output_storage(output) for output in outputs]
        self._at = _positions(self._kinds)
        # What only on-demand views take stands behind, in columns of its kinds.
        longer = {output_storage(output) for output in plan.inputs[plan.visible_inputs :]}
        runs = [(kind, len(list(run))) for kind, run in groupby(self._kinds)]
        all_floats = bool(outputs) and runs == [(Storage.F8, len(outputs))]
        self._all_floats = all_floats and Storage.F8 not in longer
        use_runs = len(outputs) >= SHORT_RUN * len(runs)
        pieces = runs if use_runs else [(kind, 1) for kind in self._kinds]
        self._writers: list[Parts] = []
        order: dict[int, int] = {}
        for kind in Storage:
            lengths = [length for piece_kind, length in pieces if piece_kind is kind]
            if lengths:
                for number, (piece_kind, _) in enumerate(pieces):
                    if piece_kind is kind:
                        order[number] = len(order)
                write = _writer(kind, lengths, in_runs=use_runs)
                is_cut = kind in longer and not use_runs
                self._writers.append(_cut(write, len(lengths)) if is_cut else write)
        self._order = [order[number] for number in range(len(pieces))]
        self._arrange: Callable[[list[bytes]], Any] = (
            itemgetter(*self._order) if len(self._order) > 1 else tuple
        )

    def encode(self, columns: Columns, line: int) -> bytes:
        """Return the JSON array of one line's values."""
        if columns.odd:
            return self.encode_exactly(columns, line)
        if self._all_floats:
            return float_array(columns.floats[line])
        parts: list[bytes] = []
        for write in self._writers:
            parts += write(columns, line)
        return b"[" + b",".join(self._arrange(parts)) + b"]"

    def encode_exactly(self, columns: Columns, line: int) -> bytes:
        """As `encode`, value by value: the slow twin, and the way of lines with unusual values."""
        tokens = []
        for number, (kind, place) in enumerate(zip(self._kinds, self._at, strict=True)):
            exact = columns.exact.get((line, number))
            if exact is None:
                tokens.append(_token(kind, columns, line, place))
            else:
                tokens.append(_exact_token(kind, exact))
        return b"[" + b",".join(tokens) + b"]"


def _positions(kinds: Sequence[Storage]) -> list[int]:
    """Return each output's column number within its kind."""
    seen = dict.fromkeys(Storage, 0)
    positions = []
    for kind in kinds:
        positions.append(seen[kind])
        seen[kind] += 1
    return positions


# --- whole columns
# -------------------------------------------------------------------------------------------------


def _writer(kind: Storage, lengths: list[int], *, in_runs: bool) -> Parts:
    """Return the function that gives the text of each piece (run or single value) of one kind in a line."""
    cuts = np.cumsum([0, *lengths]).tolist()
    spans = list(pairwise(cuts))
    if kind is Storage.F8:
        return _float_runs(spans) if in_runs else _floats
    if kind is Storage.F4:
        return _single_runs(spans) if in_runs else _singles
    if kind is Storage.I8:
        return _int_runs(spans) if in_runs else _ints
    per_value: Parts = {Storage.TIME: _times, Storage.BOOL: _bools, Storage.JSON: _texts}[kind]
    if not in_runs:
        return per_value

    def joined(columns: Columns, line: int) -> list[bytes]:
        tokens = per_value(columns, line)
        return [b",".join(tokens[low:high]) for low, high in spans]

    return joined


def _cut(write: Parts, count: int) -> Parts:
    """Return what gives the first tokens alone."""
    return lambda columns, line: write(columns, line)[:count]


def _float_runs(spans: list[tuple[int, int]]) -> Parts:
    def write(columns: Columns, line: int) -> list[bytes]:
        row = columns.floats[line]
        return [float_array(row[low:high])[1:-1] for low, high in spans]

    return write


def _single_runs(spans: list[tuple[int, int]]) -> Parts:
    def write(columns: Columns, line: int) -> list[bytes]:
        row = columns.singles[line]
        return orjson.dumps([row[low:high] for low, high in spans], option=NUMPY)[2:-2].split(b"],[")

    return write


def _int_runs(spans: list[tuple[int, int]]) -> Parts:
    def write(columns: Columns, line: int) -> list[bytes]:
        row = columns.ints[line]
        text = orjson.dumps([row[low:high] for low, high in spans], option=NUMPY)
        # [[1,2],[3]] becomes "1","2" and "3": a quote on both sides of every comma, then cut between the
        # runs.
        quoted = b'"' + text[2:-2].replace(b",", b'","').replace(b']","[', b'"],["') + b'"'
        return quoted.replace(NULL_INT_TOKEN, NULL).split(b"],[")

    return write


def _floats(columns: Columns, line: int) -> list[bytes]:
    return float_array(columns.floats[line])[1:-1].split(b",")


def _singles(columns: Columns, line: int) -> list[bytes]:
    return orjson.dumps(columns.singles[line], option=NUMPY)[1:-1].split(b",")


def _ints(columns: Columns, line: int) -> list[bytes]:
    text = orjson.dumps(columns.ints[line], option=NUMPY)[1:-1]
    return (b'"' + text.replace(b",", b'","') + b'"').replace(NULL_INT_TOKEN, NULL).split(b",")


def _times(columns: Columns, line: int) -> list[bytes]:
    return [NULL if time == NULL_INT64 else time_token(time) for time in columns.times[line].tolist()]


def _bools(columns: Columns, line: int) -> list[bytes]:
    return [BOOL_TOKENS[value] for value in columns.bools[line].tolist()]


def _texts(columns: Columns, line: int) -> list[bytes]:
    return columns.texts[line]


def time_token(time_ns: int) -> bytes:
    """Return a timestamp's JSON text."""
    return b'"' + format_time(time_ns).encode() + b'"'


# --- one value
# -----------------------------------------------------------------------------------------------------


def _token(kind: Storage, columns: Columns, line: int, place: int) -> bytes:
    if kind is Storage.F8:
        return _float_token(columns.floats[line, place], "<i8", NULL_FLOAT64_BITS)
    if kind is Storage.F4:
        return _float_token(columns.singles[line, place], "<i4", NULL_FLOAT32_BITS)
    if kind is Storage.JSON:
        return columns.texts[line][place]
    if kind is Storage.BOOL:
        return BOOL_TOKENS[min(int(columns.bools[line, place]), NULL_BOOL)]
    value = int((columns.times if kind is Storage.TIME else columns.ints)[line, place])
    return NULL if value == NULL_INT64 else _exact_token(kind, value)


def _exact_token(kind: Storage, value: int) -> bytes:
    return time_token(value) if kind is Storage.TIME else b'"%d"' % value


def _float_token(value: Any, bits_type: str, null_bits: int) -> bytes:
    if np.isnan(value):
        return NULL if int(value.view(bits_type)) == null_bits else b'"NaN"'
    if np.isinf(value):
        return b'"Infinity"' if value > 0 else b'"-Infinity"'
    return orjson.dumps(value, option=NUMPY)
