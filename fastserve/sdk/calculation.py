"""`Calculation`: a feature of an on-demand view that is an expression over the view's sources.

The expression is read when the calculation is made, and bound to the sources when the view is: only then are
the types known. Its grammar stands in `expression_syntax`, its types and nulls in `expressions`.

Invariants:
1. A bound calculation gives null or a checked value of its type (see `values`), or raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.expression_syntax import ExpressionError, Literal, Node, parse
from fastserve.sdk.expression_types import Evaluate, Scope, widened
from fastserve.sdk.expressions import compile_expression
from fastserve.sdk.types import INVALID, DataType, Field, Float64, check_dtype


class Calculation(Immutable):
    """A feature computed by an expression, such as ``request.amount / COALESCE(spending.amount_mean, 1)``.

    Names are ``source.feature``, or the feature's alone where one source only has it. The type is the
    expression's; ``dtype`` may say which one is expected, and Float64 takes Int64, too.

    Args:
        name: The feature's name.
        expr: SQL-like: arithmetic, comparisons, functions and dates over the view's sources.
        dtype: By default the expression's.
        description: For readers; the API gives it to who asks.
        tags: For readers; the API gives them to who asks.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    name: str
    expr: str
    given_dtype: DataType | None
    description: str
    tags: Mapping[str, str]
    location: Location
    valid: bool

    def __init__(
        self,
        name: str,
        expr: str,
        dtype: DataType | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        checks = Checks("Calculation", name)
        self.name = checks.identifier("name", name)
        self.expr = checks.text("expr", expr)
        self._tree = _read(checks, expr)
        self.given_dtype = None if dtype is None else check_dtype(checks, "dtype", dtype)
        self.description = checks.text("description", description)
        self.tags = checks.tags(tags)
        self.location = checks.location
        self.valid = checks.valid and (dtype is None or self.given_dtype is not INVALID)
        self._seal()

    def bound(self, checks: Checks, scope: Scope) -> BoundCalculation:
        """Return the calculation over these sources; what doesn't fit is reported at its own line."""
        try:
            return self._bound(checks, scope)
        except ExpressionError as error:
            checks.fault(f"calculation {self.name!r}: {error}", self.location)
        return self._stand_in()

    def _bound(self, checks: Checks, scope: Scope) -> BoundCalculation:
        compiled = compile_expression(self._tree, scope)
        dtype = self.given_dtype or compiled.dtype
        if dtype is None:
            checks.wrong(f"calculation {self.name!r}", "a dtype, as it may only be null", None, self.location)
            return self._stand_in()
        wide = widened(compiled, dtype)
        if wide is None:
            checks.wrong(f"calculation {self.name!r}", f"{dtype!r}", compiled.dtype, self.location)
            return self._stand_in()
        return BoundCalculation(
            Field(self.name, dtype), _guarded(self.name, dtype, wide.evaluate), wide.uses_time
        )

    def _stand_in(self) -> BoundCalculation:
        name = self.name if self.valid else "invalid"
        return BoundCalculation(
            Field(name, self.given_dtype or Float64), lambda _s, _t: None, uses_time=False
        )

    def __repr__(self) -> str:
        return f"Calculation({self.name!r}, {self.expr!r})"


@dataclass(frozen=True, slots=True)
class BoundCalculation:
    """A calculation of one view, ready to run.

    ``evaluate(sources, request_timestamp)`` takes one dict of checked values per source, in the view's order,
    and returns null or a checked value of ``field.dtype``; it raises ValueError.
    """

    field: Field
    evaluate: Callable[[Sequence[Mapping[str, Any]], datetime], Any]
    uses_time: bool
    """Whether it asks for the request's time."""


def _read(checks: Checks, text: object) -> Node:
    if isinstance(text, str):
        try:
            return parse(text)
        except ExpressionError as error:
            checks.fault(f"expr: {error}")
    return Literal(None, 1)


def _guarded(name: str, dtype: DataType, inner: Evaluate) -> Evaluate:
    """Return the function with the errors of `values` for what the type can't hold."""

    def evaluate(sources: Sequence[Mapping[str, Any]], time: datetime) -> Any:
        try:
            value = inner(sources, time)
        except ValueError as error:
            raise ValueError(f"feature `{name}`: {error}") from None
        if value != value:  # noqa: PLR0124 - NaN isn't
            raise ValueError(f"feature `{name}`: expected {dtype} that is a number, got NaN")
        return value

    return evaluate
