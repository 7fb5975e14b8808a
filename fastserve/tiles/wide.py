"""Wide aggregate functions: those whose intermediate representation (IR) is bytes and not a number or three.

The IR of a slot stands in a BYTES column of the compacted row, or among a block's tile's; ``b""`` is an empty
slot. `wide_function` gives for each function an object that makes, merges and answers them. Which functions
are wide the definition of a component decides (`aggregates`); here is how each works:

    function                     of            IR, bytes for n values                       module
    last(n), first(n)            any scalar    3 + n (8 + value)                            wide_lists
    last_distinct(n), first_…    any scalar    3 + n (8 + value)                            wide_lists
    last, first                  String        11 + value                                   wide_lists
    min, max                     String        1 + value                                    wide_lists
    approx_count_distinct(p)     any scalar    9 + 4 n, at most about 41 + 2**p / 2         wide_sketches
    approx_percentile(_, k)      numeric       6 + 8 n up to k, then 18 + 4 log2 n + 24 k   wide_quantiles
    any, with a secondary key    any           5 + for each key: key + 2 + the IR           secondary

A value takes 8 bytes (Float32 4, Bool 1, String 2 and its UTF-8, of which `MAX_STRING_BYTES` are taken at the
most).

Invariants
1. What is answered is a function of the multiset of events, whatever the order in which they came, the slots
   that they lay in and the order in which those were merged (percentiles beyond k values, and float sums
   under a secondary key: within their error).
2. Every IR begins with a byte that says its format (numbers under a secondary key: the keyed IR's byte).
3. Bytes that are no IR raise one of `IR_ERRORS`, or give some value of the type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastserve.errors import InvariantError
from fastserve.sdk.types import DataType, String
from fastserve.tiles.aggregates import AggregateSpec, CompactedSchema, WideComponent
from fastserve.tiles.secondary import Keyed
from fastserve.tiles.wide_lists import Entries, Extreme, ExtremeText
from fastserve.tiles.wide_numbers import Count, Deviation, Mean, Sum
from fastserve.tiles.wide_quantiles import Percentile
from fastserve.tiles.wide_sketches import DistinctCount
from fastserve.tiles.wide_values import IR_ERRORS, MAX_STRING_BYTES, NULL

__all__ = [
    "IR_ERRORS",
    "MAX_STRING_BYTES",
    "NULL",
    "SECONDARY_KEYS",
    "Params",
    "WideFunction",
    "answering",
    "function_of",
    "kept_texts",
    "wide_function",
]

Params = Mapping[str, float] | Sequence[tuple[str, float]]

SECONDARY_KEYS = "secondary_keys"
"""The pseudo function of the feature that gives a window's secondary keys."""


MEDIAN = 0.5
_KEEP_NO_VALUES = frozenset({"count", "approx_count_distinct"})


class WideFunction(Protocol):
    """How one function's IRs are made, merged and answered.

    Values are str, int, float or bool, timestamps int nanoseconds. With a secondary key they are pairs
    ``(key, value)`` of every event that has a key, and then ``value`` may be None; else none is None.
    """

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of one slot's events, in any order; ``b""`` of none.

        Raises:
            ValueError: a string is longer than `MAX_STRING_BYTES`.
        """

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of several slots, at least one, none of them ``b""``."""

    def finalize(self, ir: bytes) -> bytes:
        """Return an IR's value as the API's JSON, ``b"null"`` of ``b""``."""

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return ``finalize(merge(irs))`` at less cost; ``b"null"`` of no IRs."""


def wide_function(
    function: str, params: Params, input_type: DataType, secondary_key_type: DataType | None = None
) -> WideFunction:
    """Return what makes, merges and answers the IRs of an aggregate function.

    Whoever only makes and merges IRs of ``approx_percentile`` may leave out the percentile (then it is the
    median): all percentiles of a column share one sketch.
    """
    if secondary_key_type is None:
        return _plain(function, dict(params), input_type)
    inner = None if function == SECONDARY_KEYS else _plain(function, dict(params), input_type)
    return Keyed(secondary_key_type, inner)


def function_of(component: WideComponent) -> WideFunction:
    """Return what makes and merges a component's IRs."""
    key_type = None if component.secondary_key is None else component.secondary_key[1]
    return wide_function(component.function, component.params, component.input_type, key_type)


def kept_texts(schema: CompactedSchema) -> set[str]:
    """Return the columns whose strings IRs hold as they are, of at most `MAX_STRING_BYTES` therefore."""
    columns = {
        component.column
        for component in schema.wide
        if component.input_type == String and component.function not in _KEEP_NO_VALUES
    }
    keys = [component.secondary_key for component in schema.wide if component.secondary_key]
    return columns | {name for name, dtype in keys if dtype == String}


def answering(spec: AggregateSpec) -> WideFunction:
    """Return what answers a feature, or an element of a series, from IRs of its component."""
    return wide_function(spec.function, spec.params, spec.input_type, spec.key_type)


def _plain(name: str, params: Mapping[str, float], dtype: DataType) -> WideFunction:
    if name in {"last", "first", "last_distinct", "first_distinct"}:
        latest, distinct = name.startswith("last"), name.endswith("distinct")
        if "n" in params:
            return Entries(dtype, int(params["n"]), latest=latest, distinct=distinct)
        return Entries(dtype, 1, latest=latest, scalar=True)
    if name in {"min", "max"} and dtype == String:
        return ExtremeText(greatest=name == "max")
    if name in {"min", "max"}:
        return Extreme(dtype, greatest=name == "max")
    if name == "approx_count_distinct":
        return DistinctCount(dtype, int(params["precision"]))
    if name == "approx_percentile":
        return Percentile(params.get("percentile", MEDIAN), int(params["precision"]))
    return _number(name, dtype)


def _number(name: str, dtype: DataType) -> WideFunction:
    if name == "count":
        return Count()
    if name == "sum":
        return Sum(dtype)
    if name == "mean":
        return Mean(dtype)
    if name.startswith(("var_", "stddev_")):
        return Deviation(name)
    raise InvariantError(f"expected an aggregate function, got {name!r}")
