"""What a compiled expression is, and the checks of types that operators and functions share.

Knows neither the grammar's details nor any operator.

Invariants
1. What doesn't fit is told with an `ExpressionError` that names the argument's column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastserve.sdk.expression_syntax import Call, ExpressionError, Node
from fastserve.sdk.types import DataType, Field, Float64, Int64

Evaluate = Callable[[Sequence[Mapping[str, Any]], datetime], Any]
"""Takes one dict per source, in the sources' order, and the request's time."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression ready to run; ``dtype`` is None for a null that has no type of its own."""

    dtype: DataType | None
    evaluate: Evaluate
    uses_time: bool = False
    """Whether it asks for the request's time."""


Scope = Sequence[tuple[str, Sequence[Field]]]
"""The names and fields of the sources, in their order."""


def widened(compiled: Compiled, dtype: DataType) -> Compiled | None:
    """Return the expression with values of ``dtype``, or None where its type can't become that one."""
    if compiled.dtype in (dtype, None):
        return Compiled(dtype, compiled.evaluate, compiled.uses_time)
    if compiled.dtype == Int64 and dtype == Float64:
        inner = compiled.evaluate
        return Compiled(
            dtype, lambda s, t: None if (v := inner(s, t)) is None else float(v), compiled.uses_time
        )
    return None


def expect(compiled: Compiled, dtypes: Sequence[DataType], what: str, node: Node) -> None:
    """Refuse a value of another type than these; null is of every type."""
    if compiled.dtype is not None and compiled.dtype not in dtypes:
        names = " or ".join(map(str, dtypes))
        raise ExpressionError(f"{what} of type {names}", str(compiled.dtype), node.column)


def expect_count(node: Call, least: int, most: int | None = None) -> None:
    """Refuse a call with fewer or more arguments; None is no limit."""
    got = len(node.arguments)
    if got < least or (most is not None and got > most):
        limit = str(least) if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        arguments = "argument" if limit == "1" else "arguments"
        raise ExpressionError(f"{limit} {arguments} of {node.function}", str(got), node.column)


def alike(nodes: Sequence[Node], parts: Sequence[Compiled]) -> tuple[DataType | None, list[Evaluate]]:
    """Return the one type of several values, and their functions widened to it."""
    dtypes = [part.dtype for part in parts if part.dtype is not None]
    if not dtypes:
        return None, [part.evaluate for part in parts]
    dtype = Float64 if Float64 in dtypes and set(dtypes) <= {Int64, Float64} else dtypes[0]
    functions = []
    for node, part in zip(nodes, parts, strict=True):
        wide = widened(part, dtype)
        if wide is None:
            raise ExpressionError(f"a value of type {dtype}, as before", str(part.dtype), node.column)
        functions.append(wide.evaluate)
    return dtype, functions
