"""The keyed IR of views with an ``aggregation_secondary_key``: a map from key to the function's own IR.

    offset  bytes   what
    0       1       format: 1, inner lengths of 2 bytes; 2, of 4 bytes
    1       4       how many keys
    5       …       the keys, ascending, as `wide_values` packs them
    …       2, 4 n  lengths of the inner IRs, 0 for a key that had no value
    …       …       the inner IRs

A key takes part when it had an event in the slot, whether or not the column had a value then: so the arrays
of all columns over one window have the same keys, those that the window's own ``secondary_keys`` feature
gives. Events without a secondary key don't take part.

Invariants
1. ``merge`` is as associative and commutative as the inner function's.
2. An answer has one element per key, in the keys' order; null where the key had no value.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

from fastserve.sdk.types import DataType
from fastserve.tiles.wide_values import NULL, Codec, Key, codec_of

_HEAD = struct.Struct("<BI")
_SHORT, _LONG = 1, 2
_LENGTHS = {_SHORT: "H", _LONG: "I"}
_SHORT_LIMIT = 2**16


class Inner(Protocol):
    """A function of one key's values, as `wide.WideFunction`."""

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of values."""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of several."""

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of several."""


class Keyed:
    """A function over the values of each secondary key; events come as (key, value) pairs.

    With ``inner`` None only the keys are kept, and answered.
    """

    def __init__(self, key_type: DataType, inner: Inner | None) -> None:
        self._codec: Codec = codec_of(key_type)
        self._inner = inner

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's events: pairs of a key and a value, which may be None."""
        if not values:
            return b""
        keys = self._codec.keys([key for key, _ in values])
        if self._inner is None:
            return self._encode(dict.fromkeys(keys, b""))
        events: dict[Key, tuple[list[int], list[Any]]] = {}
        for key, time_ns, (_, value) in zip(keys, times_ns, values, strict=True):
            times_of, values_of = events.setdefault(key, ([], []))
            if value is not None:
                times_of.append(time_ns)
                values_of.append(value)
        tile = self._inner.tile
        return self._encode({key: tile(*event) if event[1] else b"" for key, event in events.items()})

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        if len(irs) == 1:
            return irs[0]
        return self._encode(
            {key: self._merged(parts) if parts else b"" for key, parts in self._by_key(irs).items()}
        )

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self.answer([ir]) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        if not irs:
            return NULL
        parts = self._by_key(irs)
        keys = sorted(parts)
        if self._inner is None:
            return self._codec.array(keys)
        answer = self._inner.answer
        return b"[" + b",".join([answer(parts[key]) if parts[key] else NULL for key in keys]) + b"]"

    def _merged(self, parts: list[bytes]) -> bytes:
        if len(parts) == 1 or self._inner is None:
            return parts[0]
        return self._inner.merge(parts)

    def _by_key(self, irs: Sequence[bytes]) -> dict[Key, list[bytes]]:
        """Return every key with the IRs that hold something."""
        parts: defaultdict[Key, list[bytes]] = defaultdict(list)
        for ir in irs:
            keys, cuts = self._decode(ir)
            for key, low, high in zip(keys, cuts, cuts[1:], strict=False):
                if low != high:
                    parts[key].append(ir[low:high])
                else:
                    parts[key]  # the key is there, without a value
        return parts

    def _encode(self, inner: dict[Key, bytes]) -> bytes:
        keys = sorted(inner)
        irs = [inner[key] for key in keys]
        lengths = list(map(len, irs))
        form = _SHORT if max(lengths) < _SHORT_LIMIT else _LONG
        return b"".join(
            (
                _HEAD.pack(form, len(keys)),
                self._codec.pack(keys),
                struct.pack(f"<{len(keys)}{_LENGTHS[form]}", *lengths),
                *irs,
            )
        )

    def _decode(self, ir: bytes) -> tuple[list[Key], list[int]]:
        """Return an IR's keys and, one more than these, the bounds of their inner IRs."""
        form, count = _HEAD.unpack_from(ir)
        if form not in _LENGTHS or not 0 < count <= len(ir):
            raise ValueError(f"expected a keyed IR of format 1 or 2, got format {form} with {count} keys")
        keys, at = self._codec.unpack(ir, _HEAD.size, count)
        lengths = struct.unpack_from(f"<{count}{_LENGTHS[form]}", ir, at)
        cuts = list(accumulate(lengths, initial=at + struct.calcsize(f"<{count}{_LENGTHS[form]}")))
        if cuts[-1] != len(ir):
            raise ValueError(f"expected a keyed IR of {cuts[-1]} bytes, got {len(ir)}")
        return keys, cuts
