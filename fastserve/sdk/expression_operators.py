"""The operators and functions of calculations: their types, their nulls, and the closures they become.

What they do with values that are there stands in `expression_functions`.

Invariants
1. A builder refuses arguments of other types or of another number with an `ExpressionError`.
2. What it builds gives None or a checked value of its type, or raises ValueError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastserve.errors import shown
from fastserve.sdk.expression_functions import (
    DIFFERENCE_UNITS,
    PARTS,
    difference,
    exponential,
    float_remainder,
    int64,
    int_remainder,
    logarithm,
    quotient,
    root,
)
from fastserve.sdk.expression_syntax import Call, ExpressionError, Literal, Name
from fastserve.sdk.expression_types import Compiled, Evaluate, alike, expect, expect_count
from fastserve.sdk.types import Array, Bool, Float64, Int64, Map, String, Timestamp
from fastserve.sdk.values import TIME_FIRST, TIME_LAST

Builder = Callable[[Call, Sequence[Compiled]], Compiled]
_NUMERIC: Final = (Int64, Float64)
_ORDERED: Final = (Int64, Float64, String, Timestamp)


def _strict_two(function: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    """Return the function of two values that is null where one of them is."""

    def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
        a = left(s, t)
        if a is None:
            return None
        b = right(s, t)
        return None if b is None else function(a, b)

    return evaluate


def _strict_one(function: Callable[[Any], Any], operand: Evaluate) -> Evaluate:
    return lambda s, t: None if (value := operand(s, t)) is None else function(value)


def _arithmetic(of_ints: Callable[[int, int], Any], of_floats: Callable[[float, float], Any]) -> Builder:
    def build(node: Call, parts: Sequence[Compiled]) -> Compiled:
        for part, argument in zip(parts, node.arguments, strict=True):
            expect(part, _NUMERIC, f"a number for {node.function}", argument)
        dtype, (left, right) = alike(node.arguments, parts)
        if dtype == Float64:
            return Compiled(dtype, _strict_two(of_floats, left, right))
        return Compiled(Int64, _strict_two(lambda a, b: _fits(of_ints(a, b)), left, right))

    return build


def _fits(value: int | None) -> int | None:
    return None if value is None else int64(value)


def _divided(node: Call, parts: Sequence[Compiled]) -> Compiled:
    for part, argument in zip(parts, node.arguments, strict=True):
        expect(part, _NUMERIC, "a number for /", argument)
    return Compiled(Float64, _strict_two(quotient, parts[0].evaluate, parts[1].evaluate))


def _negated(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect(parts[0], _NUMERIC, "a number for -", node.arguments[0])
    is_float = parts[0].dtype == Float64
    function: Callable[[Any], Any] = operator.neg if is_float else lambda value: int64(-value)
    return Compiled(parts[0].dtype or Int64, _strict_one(function, parts[0].evaluate))


def _compared(function: Callable[[Any, Any], bool], *, ordered: bool) -> Builder:
    def build(node: Call, parts: Sequence[Compiled]) -> Compiled:
        dtypes = _ORDERED if ordered else (*_ORDERED, Bool)
        for part, argument in zip(parts, node.arguments, strict=True):
            expect(part, dtypes, f"a value for {node.function}", argument)
        if {part.dtype for part in parts} - {None} != {Int64, Float64}:
            alike(node.arguments, parts)
        # Integers and floats are compared as they are, exactly.
        return Compiled(Bool, _strict_two(function, parts[0].evaluate, parts[1].evaluate))

    return build


def _conditions(node: Call, parts: Sequence[Compiled]) -> None:
    for part, argument in zip(parts, node.arguments, strict=True):
        expect(part, (Bool,), f"a condition for {node.function}", argument)


def _junction(decisive: bool) -> Builder:
    """Return the builder of AND (false decides) or OR (true decides)."""

    def build(node: Call, parts: Sequence[Compiled]) -> Compiled:
        _conditions(node, parts)
        left, right = parts[0].evaluate, parts[1].evaluate

        def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
            a = left(s, t)
            if a is decisive:
                return decisive
            b = right(s, t)
            if b is decisive:
                return decisive
            return None if a is None or b is None else not decisive

        return Compiled(Bool, evaluate)

    return build


def _not(node: Call, parts: Sequence[Compiled]) -> Compiled:
    _conditions(node, parts)
    return Compiled(Bool, _strict_one(operator.not_, parts[0].evaluate))


def _is_null(_node: Call, parts: Sequence[Compiled]) -> Compiled:
    operand = parts[0].evaluate
    return Compiled(Bool, lambda s, t: operand(s, t) is None)


def _in(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 2)
    equal = _compared(operator.eq, ordered=False)
    tests = [
        equal(Call("IN", (node.arguments[0], argument), node.column), [parts[0], part]).evaluate
        for part, argument in zip(parts[1:], node.arguments[1:], strict=True)
    ]

    def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
        found: bool | None = False
        for test in tests:
            equals = test(s, t)
            if equals:
                return True
            found = None if equals is None else found
        return found

    return Compiled(Bool, evaluate)


def _coalesce(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 1)
    dtype, functions = alike(node.arguments, parts)

    def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
        for function in functions:
            value = function(s, t)
            if value is not None:
                return value
        return None

    return Compiled(dtype, evaluate)


def _extreme(choose: Callable[[Sequence[Any]], Any]) -> Builder:
    def build(node: Call, parts: Sequence[Compiled]) -> Compiled:
        expect_count(node, 1)
        for part, argument in zip(parts, node.arguments, strict=True):
            expect(part, _ORDERED, f"a value for {node.function}", argument)
        dtype, functions = alike(node.arguments, parts)

        def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
            values = [value for function in functions if (value := function(s, t)) is not None]
            return choose(values) if values else None

        return Compiled(dtype, evaluate)

    return build


def _if(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 3, 3)
    expect(parts[0], (Bool,), "a condition for IF", node.arguments[0])
    dtype, (then, otherwise) = alike(node.arguments[1:], parts[1:])
    condition = parts[0].evaluate
    return Compiled(dtype, lambda s, t: then(s, t) if condition(s, t) else otherwise(s, t))


def _nullif(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 2, 2)
    equal = _compared(operator.eq, ordered=False)(node, parts).evaluate
    value = parts[0].evaluate
    return Compiled(parts[0].dtype, lambda s, t: None if equal(s, t) else value(s, t))


def _absolute(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 1, 1)
    expect(parts[0], _NUMERIC, "a number for ABS", node.arguments[0])
    is_float = parts[0].dtype == Float64
    function: Callable[[Any], Any] = abs if is_float else lambda value: int64(abs(value))
    return Compiled(parts[0].dtype or Int64, _strict_one(function, parts[0].evaluate))


def _of_float(function: Callable[[float], float]) -> Builder:
    def build(node: Call, parts: Sequence[Compiled]) -> Compiled:
        expect_count(node, 1, 1)
        expect(parts[0], _NUMERIC, f"a number for {node.function}", node.arguments[0])
        return Compiled(Float64, _strict_one(function, parts[0].evaluate))

    return build


def _length(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 1, 1)
    dtype = parts[0].dtype
    if dtype is not None and dtype != String and not isinstance(dtype, (Array, Map)):
        raise ExpressionError("a string, an array or a map for LENGTH", str(dtype), node.arguments[0].column)
    return Compiled(Int64, _strict_one(len, parts[0].evaluate))


# --- times


def _unit(node: Call, units: Sequence[str]) -> str:
    unit = node.arguments[0]
    given = unit.value if isinstance(unit, Literal) else unit.feature if isinstance(unit, Name) else None
    if not isinstance(given, str) or given.lower() not in units:
        raise ExpressionError(f"a unit ({', '.join(units)})", shown(given), unit.column)
    return given.lower()


def _datediff(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 3, 3)
    for part, argument in zip(parts, node.arguments[1:], strict=True):
        expect(part, (Timestamp,), "a time for DATEDIFF", argument)
    function = difference(_unit(node, DIFFERENCE_UNITS))
    return Compiled(Int64, _strict_two(function, parts[0].evaluate, parts[1].evaluate))


def _extract(node: Call, parts: Sequence[Compiled]) -> Compiled:
    expect(parts[0], (Timestamp,), "a time for EXTRACT", node.arguments[1])
    unit = _unit(node, tuple(PARTS))
    return Compiled(Float64 if unit == "epoch" else Int64, _strict_one(PARTS[unit], parts[0].evaluate))


def _now(node: Call, _parts: Sequence[Compiled]) -> Compiled:
    expect_count(node, 0, 0)
    return Compiled(Timestamp, lambda _s, t: t, uses_time=True)


def _timestamp(node: Call, _parts: Sequence[Compiled]) -> Compiled:
    """Build ``TIMESTAMP '2024-01-01T00:00:00Z'``: a constant time, in UTC where it names no zone."""
    expect_count(node, 1, 1)
    text = node.arguments[0]
    try:
        moment = datetime.fromisoformat(text.value if isinstance(text, Literal) else "")
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if not TIME_FIRST <= moment < TIME_LAST:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        got = shown(text.value) if isinstance(text, Literal) else "an expression"
        raise ExpressionError("a time such as '2024-01-31T12:00:00Z'", got, text.column) from None
    return Compiled(Timestamp, lambda _s, _t: moment)


WITH_UNIT: Final = frozenset({"DATEDIFF", "EXTRACT"})
BUILDERS: Final[dict[str, Builder]] = {
    "+": _arithmetic(operator.add, operator.add),
    "-": _arithmetic(operator.sub, operator.sub),
    "*": _arithmetic(operator.mul, operator.mul),
    "/": _divided,
    "%": _arithmetic(int_remainder, float_remainder),
    "-x": _negated,
    "=": _compared(operator.eq, ordered=False),
    "<>": _compared(operator.ne, ordered=False),
    "<": _compared(operator.lt, ordered=True),
    "<=": _compared(operator.le, ordered=True),
    ">": _compared(operator.gt, ordered=True),
    ">=": _compared(operator.ge, ordered=True),
    "AND": _junction(decisive=False),
    "OR": _junction(decisive=True),
    "NOT": _not,
    "IS NULL": _is_null,
    "IN": _in,
    "COALESCE": _coalesce,
    "NULLIF": _nullif,
    "IF": _if,
    "LEAST": _extreme(min),
    "GREATEST": _extreme(max),
    "ABS": _absolute,
    "SQRT": _of_float(root),
    "LN": _of_float(logarithm),
    "EXP": _of_float(exponential),
    "LENGTH": _length,
    "DATEDIFF": _datediff,
    "EXTRACT": _extract,
    "TIMESTAMP": _timestamp,
    "NOW": _now,
}
