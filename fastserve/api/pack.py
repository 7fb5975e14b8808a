"""Columns of feature values to MessagePack, for callers that ask for it; `encode` writes the JSON.

All values of fixed width are laid out at once: a byte that says what follows, and eight that follow it, cut
to what they need. int64 always takes nine bytes: shorter forms would have to be chosen value by value.

Invariants
1. A packed vector says what its JSON says: null is nil, int64 an integer, float64 and float32 floats of their
   width, whatever is in them; times are the same texts, structs the same lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from fastserve.api.encode_on_demand import computed_values, converter, on_demand_views, time_text
from fastserve.plan.service import ServicePlan
from fastserve.sdk.types import Array, DataType, Float32, Float64, Int64, Map, Struct, Timestamp
from fastserve.serving.columns import Columns, output_storage
from fastserve.tiles.layout import NULL_BOOL, NULL_FLOAT32_BITS, NULL_FLOAT64_BITS, NULL_INT64, Storage
from fastserve.tiles.times import format_time
from fastserve.wire.msgpack import FALSE, FLOAT32, FLOAT64, INT64, NIL, TRUE, array_head, map_head, pack

_CELL = np.dtype([("first", "u1"), ("word", ">u8")])
_FIRSTS = {Storage.F8: FLOAT64, Storage.F4: FLOAT32, Storage.I8: INT64, Storage.BOOL: TRUE}
_BOOL_FIRSTS = np.array([FALSE, TRUE, NIL], "u1")
# How many bytes a value takes, by its first; nothing where a text is put in later.
_LENGTHS = np.zeros(256, "u1")
_LENGTHS[[NIL, FALSE, TRUE]] = 1
_LENGTHS[FLOAT32] = 5
_LENGTHS[[FLOAT64, INT64]] = 9
_BYTES = np.arange(_CELL.itemsize)
_NIL = bytes([NIL])
FEW_NULLS = 16
"""Up to one null in so many values they are cut out one by one, which is cheaper than to choose among all
bytes (`perf/micro/encode.py`)."""

Words = npt.NDArray[Any]
At = slice | npt.NDArray[np.intp]
_Read = Callable[[Any], Any]


class FeaturesPacker:
    """Packs lines of `Columns` for one service: `encode.FeaturesEncoder` in the other encoding."""

    def __init__(self, plan: ServicePlan) -> None:
        outputs = plan.inputs[: plan.visible_inputs]
        kinds = [output_storage(output) for output in outputs]
        self._firsts = np.array([_FIRSTS.get(kind, 0) for kind in kinds], "u1")
        # Of each kind how many values are answered, the first ones, and where: on-demand views may take more.
        self._at = {kind: (kinds.count(kind), _places(kinds, kind)) for kind in Storage if kind in kinds}
        self._has_short = not set(kinds) <= {Storage.F8, Storage.I8}
        self._in_text = [number for number, kind in enumerate(kinds) if kind not in _FIRSTS]
        self._is_time = [kinds[number] is Storage.TIME for number in self._in_text]
        dtypes = [output.dtype for output, kind in zip(outputs, kinds, strict=True) if kind is Storage.JSON]
        self._time_numbers = [number for number, kind in enumerate(kinds) if kind is Storage.TIME]
        self._readers = [json_reader(dtype) for dtype in dtypes]

    def pack(self, columns: Columns, line: int) -> bytes:
        """Return one line's values, one after the other, without the array's head."""
        cells = np.empty(len(self._firsts), _CELL)
        firsts, words = cells["first"], cells["word"]
        firsts[:] = self._firsts
        has_null = self._put_fixed(columns, line, firsts, words)
        if not self._has_short:
            return _without_nulls(cells, firsts) if has_null else cells.tobytes()
        lengths = _LENGTHS[firsts]
        packed = cells.view("u1").reshape(-1, _CELL.itemsize)[lengths[:, None] > _BYTES].tobytes()
        return self._with_texts(columns, line, packed, lengths) if self._in_text else packed

    def _put_fixed(self, columns: Columns, line: int, firsts: Words, words: Words) -> bool:
        """Put what has a fixed width where it belongs; return whether there was a null."""
        has_null = False
        for kind, (count, at) in self._at.items():
            if kind is Storage.F8:
                bits = columns.floats[line, :count].view("<i8")
                words[at] = bits.view("<u8")
                nulls = bits == NULL_FLOAT64_BITS
            elif kind is Storage.F4:
                bits = columns.singles[line, :count].view("<i4")
                words[at] = bits.view("<u4").astype("<u8") << 32
                nulls = bits == NULL_FLOAT32_BITS
            elif kind is Storage.I8:
                ints = columns.ints[line, :count]
                words[at] = ints.view("<u8")
                nulls = ints == NULL_INT64
            elif kind is Storage.BOOL:
                firsts[at] = _BOOL_FIRSTS[np.minimum(columns.bools[line, :count], NULL_BOOL)]
                continue
            else:
                continue
            if nulls.any():
                has_null = True
                firsts[at] = np.where(nulls, NIL, firsts[at])
        for row, number in columns.exact:
            if row == line and number < len(firsts):  # what looks like a null and isn't
                firsts[number] = self._firsts[number]
        return has_null

    def _with_texts(self, columns: Columns, line: int, packed: bytes, lengths: Words) -> bytes:
        ends = np.cumsum(lengths)[self._in_text].tolist()
        times = iter(self._times(columns, line))
        texts = iter(self._texts(columns, line))
        parts: list[bytes] = []
        start = 0
        for end, is_time in zip(ends, self._is_time, strict=True):
            parts += (packed[start:end], next(times if is_time else texts))
            start = end
        parts.append(packed[start:])
        return b"".join(parts)

    def _times(self, columns: Columns, line: int) -> list[bytes]:
        if Storage.TIME not in self._at:
            return []
        times = columns.times[line, : len(self._time_numbers)].tolist()
        packed = [_NIL if time == NULL_INT64 else pack(format_time(time)) for time in times]
        for row, number in columns.exact:
            if row == line and number in self._time_numbers:
                packed[self._time_numbers.index(number)] = pack(format_time(NULL_INT64))
        return packed

    def _texts(self, columns: Columns, line: int) -> list[bytes]:
        if not self._readers:
            return []
        texts = columns.texts[line][: len(self._readers)]
        values = orjson.loads(b"[" + b",".join(texts) + b"]")
        return [pack(_or_nil(read, value)) for read, value in zip(self._readers, values, strict=True)]


def _without_nulls(cells: Words, firsts: Words) -> bytes:
    """Return the bytes of values that take a cell each, but for nulls."""
    nulls = np.flatnonzero(firsts == NIL)
    if len(nulls) * FEW_NULLS > len(firsts):
        return cells.view("u1").reshape(-1, _CELL.itemsize)[_LENGTHS[firsts][:, None] > _BYTES].tobytes()
    packed = cells.tobytes()
    parts = []
    start = 0
    for first in (nulls * _CELL.itemsize).tolist():
        parts.append(packed[start : first + 1])
        start = first + _CELL.itemsize
    parts.append(packed[start:])
    return b"".join(parts)


def _places(kinds: Sequence[Storage], kind: Storage) -> At:
    """Return where the values of a kind stand; of neighbours a slice, which is cheaper."""
    found = [number for number, other in enumerate(kinds) if other is kind]
    if found[-1] - found[0] == len(found) - 1:
        return slice(found[0], found[-1] + 1)
    return np.array(found, np.intp)


def json_reader(dtype: DataType) -> _Read | None:
    """Return what makes of a value in the API's JSON, not null, what is packed; None for nothing to do."""
    if isinstance(dtype, Array):
        element = json_reader(dtype.element)
        return None if element is None else lambda items: [_or_nil(element, item) for item in items]
    if isinstance(dtype, Map):
        member = json_reader(dtype.value)
        return (
            None
            if member is None
            else lambda items: {key: _or_nil(member, item) for key, item in items.items()}
        )
    if isinstance(dtype, Struct):
        members = [json_reader(field.dtype) for field in dtype.fields]
        return lambda values: [_or_nil(read, item) for read, item in zip(members, values, strict=True)]
    return _READERS.get(dtype)


def _or_nil(read: _Read | None, value: Any) -> Any:
    return value if value is None or read is None else read(value)


# Both take "NaN", "Infinity" and "-Infinity" for what they are.
_READERS: dict[DataType, _Read] = {Int64: int, Float64: float, Float32: np.float32}
# What an on-demand view gave needs less than JSON does.
_COMPUTED: dict[DataType, _Read] = {Float32: np.float32, Timestamp: time_text}


class VectorPacker:
    """Packs whole vectors, for a service with on-demand views or without."""

    def __init__(self, plan: ServicePlan) -> None:
        self._stored = FeaturesPacker(plan) if plan.visible_inputs else None
        self._views = on_demand_views(plan, lambda dtype: converter(dtype, _COMPUTED))
        self._head = array_head(len(plan.outputs))

    def pack(self, columns: Columns, line: int) -> bytes:
        """Return one line's values as an array.

        Raises:
            RequestError: a view of this line has failed.
        """
        parts = [self._head]
        if self._views:
            parts += map(pack, computed_values(self._views, columns, line))
        if self._stored is not None:
            parts.append(self._stored.pack(columns, line))
        return b"".join(parts)


_RESULT, _FEATURES, _METADATA = pack("result"), pack("features"), pack("metadata")
_VECTOR = map_head(1) + _FEATURES


def packed_answer(vectors: Sequence[bytes], metadata: bytes, *, batch: bool) -> bytes:
    """Return the answer of get-features, or of get-features-batch, that holds packed vectors.

    ``metadata`` is the JSON of that part, or nothing where nothing was asked for.
    """
    result = [part for vector in vectors for part in (_VECTOR, vector)]
    many = array_head(len(vectors)) if batch else b""
    about = (_METADATA, pack(orjson.loads(metadata))) if metadata else ()
    return b"".join((map_head(2 if metadata else 1), _RESULT, many, *result, *about))
