"""Wide functions that keep some of the values: last and first n, the distinct ones, extremes of strings.

What is kept of a slot is a list of entries (time, key of the value), ascending; of all entries of a window
the last (first) n are answered. Entries of equal time stand in the order of their values, so the outcome
depends on which events there were and on nothing else: neither on the order in which they came nor on how
they were cut into slots.

    offset  bytes  what
    0       1      format, 1
    1       2      count
    3       8 n    times, int64 nanoseconds, ascending
    …       …      keys as `wide_values` packs them

A distinct value's entry has the time of its last (first) occurrence. To keep n of each slot is enough: a
value among the window's n latest is among the n latest of the slot that it occurred last in.

Invariants
1. ``merge`` of IRs in any order and grouping gives the same bytes.
2. An IR holds at most n entries.
3. Bytes that aren't an IR raise one of `wide_values.IR_ERRORS`, or give some values of the type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastserve.sdk.types import DataType, String
from fastserve.tiles.wide_values import NULL, Codec, Key, codec_of

Entry = tuple[int, Key]

FORMAT = 1
_TEXT = bytes([FORMAT])
_HEAD = struct.Struct("<BH")
_TIME = struct.Struct("<q")


class Entries:
    """The last or first ``count`` values, or distinct values, of a window.

    ``scalar`` is for a single value that is answered as itself and not as an array.
    """

    def __init__(
        self, dtype: DataType, count: int, *, latest: bool, distinct: bool = False, scalar: bool = False
    ) -> None:
        self._codec: Codec = codec_of(dtype)
        self._count = count
        self._latest = latest
        self._distinct = distinct
        self._scalar = scalar

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's events, which have values and any order."""
        if not values:
            return b""
        keys = self._codec.distinct_keys(values) if self._distinct else self._codec.keys(values)
        return self._encode(self._kept(zip(times_ns, keys, strict=True)))

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return self._encode(self._merged(irs))

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self._json(self._decode(ir)) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        return self._json(self._merged(irs))

    def _merged(self, irs: Sequence[bytes]) -> list[Entry]:
        """Return the entries to keep, reading slots from the nearest on and none that can't add any."""
        if len(irs) == 1:
            return self._decode(irs[0])
        entries: list[Entry] = []
        for edge_ns, ir in sorted(zip(map(self._edge_ns, irs), irs, strict=True), reverse=self._latest):
            if len(entries) == self._count:
                full = edge_ns < entries[0][0] if self._latest else edge_ns > entries[-1][0]
                if full:
                    break
            entries = self._kept([*entries, *self._decode(ir)])
        return entries

    def _kept(self, entries: Iterable[Entry]) -> list[Entry]:
        ordered = sorted(entries)
        if self._distinct:
            # The later entry of a key replaces the earlier one in a dict: walk towards the one to keep.
            walk = ordered if self._latest else reversed(ordered)
            best = {key: time_ns for time_ns, key in walk}
            ordered = sorted(zip(best.values(), best, strict=True))
        return ordered[-self._count :] if self._latest else ordered[: self._count]

    def _edge_ns(self, ir: bytes) -> int:
        """Return the time of the entry that is nearest to where entries are kept."""
        _, count = _HEAD.unpack_from(ir)
        at = _HEAD.size + 8 * (count - 1 if self._latest else 0)
        edge_ns: int = _TIME.unpack_from(ir, at)[0]
        return edge_ns

    def _encode(self, entries: list[Entry]) -> bytes:
        if not entries:
            return b""
        times_ns, keys = zip(*entries, strict=True)
        count = len(entries)
        return _HEAD.pack(FORMAT, count) + struct.pack(f"<{count}q", *times_ns) + self._codec.pack(keys)

    def _decode(self, ir: bytes) -> list[Entry]:
        form, count = _HEAD.unpack_from(ir)
        if form != FORMAT or not 0 < count <= self._count:
            raise ValueError(
                f"expected at most {self._count} entries in format {FORMAT}, got {count} in format {form}"
            )
        times_ns = struct.unpack_from(f"<{count}q", ir, _HEAD.size)
        keys, end = self._codec.unpack(ir, _HEAD.size + 8 * count, count)
        if end != len(ir):
            raise ValueError(f"expected entries of {end} bytes, got {len(ir)}")
        return list(zip(times_ns, keys, strict=True))

    def _json(self, entries: list[Entry]) -> bytes:
        if not entries:
            return NULL
        if self._scalar:
            return self._codec.token(entries[0][1])
        return self._codec.array([key for _, key in entries])


class ExtremeText:
    """The least or greatest string. The IR is the format, 1, and its UTF-8: IRs order as the strings do."""

    def __init__(self, *, greatest: bool) -> None:
        self._codec: Codec = codec_of(String)
        self._best: Callable[[Sequence[bytes]], bytes] = max if greatest else min

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        return _TEXT + self._best(self._codec.keys(values)) if values else b""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return self._best(irs)

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self.answer([ir]) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        if not irs:
            return NULL
        if max(irs)[:1] != _TEXT or min(irs)[:1] != _TEXT:
            raise ValueError(f"expected strings of format {FORMAT}, got another")
        return self._codec.token(self._best(irs)[1:])


class Extreme:
    """The least or greatest number. NaN is passed over.

    The IR is the format, 1, and the value's key as it is packed.
    """

    def __init__(self, dtype: DataType, *, greatest: bool) -> None:
        self._codec: Codec = codec_of(dtype)
        self._greatest = greatest

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        numbers = [value for value in values if value == value]  # noqa: PLR0124 - NaN isn't itself
        keys = self._codec.distinct_keys(numbers)  # with one zero
        return self._encode(self._best(keys)) if keys else b""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return self._encode(self._best(list(map(self._decode, irs)))) if irs else b""

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self._codec.token(self._decode(ir)) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        return self._codec.token(self._best(list(map(self._decode, irs)))) if irs else NULL

    def _best(self, keys: list[Key]) -> Key:
        return max(keys) if self._greatest else min(keys)

    def _encode(self, key: Key) -> bytes:
        return bytes([FORMAT]) + self._codec.pack([key])

    def _decode(self, ir: bytes) -> Key:
        keys, end = self._codec.unpack(ir, 1, 1)
        if ir[0] != FORMAT or end != len(ir):
            raise ValueError(f"expected {end} bytes in format {FORMAT}, got {len(ir)} in format {ir[0]}")
        return keys[0]
