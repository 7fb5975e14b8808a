"""A calculation's tree checked against the types of what it names, and compiled to closures.

Nothing an author or a caller writes is ever executed as Python: the tree's nodes become functions of our own.

Types: Float32 is computed as Float64; an operation of Int64 and Float64 is one of Float64; ``/`` always
gives Float64. Nulls are SQL's: an operator or a function of null is null, except AND and OR (FALSE AND null
is FALSE, TRUE OR null is TRUE), IS NULL, COALESCE, LEAST and GREATEST (of what isn't null), IF and CASE (a
null condition doesn't hold).

Invariants
1. A compiled expression gives None or a checked value of its ``dtype`` (see `values`), whatever checked
   values its sources hold; or it raises ValueError.
2. What can be told from types is told when it is compiled, with an `ExpressionError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fastserve.errors import shown
from fastserve.sdk.expression_operators import BUILDERS, WITH_UNIT
from fastserve.sdk.expression_syntax import KEYWORDS, Call, Case, ExpressionError, Literal, Name, Node
from fastserve.sdk.expression_types import Compiled, Scope, alike, expect
from fastserve.sdk.types import Bool, DataType, Float32, Float64, Int64, String
from fastserve.sdk.values import INT64_MAX, INT64_MIN

NAMES_TOLD_MAX: Final = 20


def compile_expression(tree: Node, scope: Scope) -> Compiled:
    """Return the expression as a function of its sources.

    Raises:
        ExpressionError: a name that isn't there or isn't unique, or types that don't fit.
    """
    return _Compiler(scope).compiled(tree)


class _Compiler:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def compiled(self, node: Node) -> Compiled:
        if isinstance(node, Literal):
            return _literal(node)
        if isinstance(node, Name):
            return self._name(node)
        if isinstance(node, Case):
            return self._case(node)
        build = BUILDERS.get(node.function)
        if build is None:
            known = ", ".join(name for name in BUILDERS if name.isalpha() and name not in KEYWORDS)
            raise ExpressionError(f"one of the functions {known}", shown(node.function), node.column)
        parts = [self.compiled(argument) for argument in _values_of(node)]
        return _with_time(build(node, parts), parts)

    def _name(self, node: Name) -> Compiled:
        found = [
            (position, field.dtype)
            for position, (source, fields) in enumerate(self._scope)
            for field in fields
            if field.name == node.feature and node.source in (None, source)
        ]
        written = node.feature if node.source is None else f"{node.source}.{node.feature}"
        if not found:
            raise ExpressionError(f"one of {self._known_names()}", shown(written), node.column)
        if len(found) > 1:
            names = " or ".join(f"{self._scope[position][0]}.{node.feature}" for position, _ in found)
            raise ExpressionError(names, shown(written), node.column)
        ((position, dtype),) = found
        feature = node.feature
        return Compiled(Float64 if dtype == Float32 else dtype, lambda s, _: s[position][feature])

    def _known_names(self) -> str:
        names = [f"{source}.{field.name}" for source, fields in self._scope for field in fields]
        return ", ".join(names[:NAMES_TOLD_MAX]) + (", …" if len(names) > NAMES_TOLD_MAX else "")

    def _case(self, node: Case) -> Compiled:
        conditions = [self.compiled(condition) for condition, _ in node.branches]
        for compiled, (condition, _) in zip(conditions, node.branches, strict=True):
            expect(compiled, (Bool,), "a condition", condition)
        otherwise = node.otherwise or Literal(None, node.column)
        values = [*(value for _, value in node.branches), otherwise]
        parts = [self.compiled(value) for value in values]
        dtype, results = alike(values, parts)
        branches = [(c.evaluate, r) for c, r in zip(conditions, results[:-1], strict=True)]
        last = results[-1]

        def evaluate(s: Sequence[Mapping[str, Any]], t: datetime) -> Any:
            for condition, result in branches:
                if condition(s, t):
                    return result(s, t)
            return last(s, t)

        return _with_time(Compiled(dtype, evaluate), [*conditions, *parts])


def _with_time(compiled: Compiled, parts: Sequence[Compiled]) -> Compiled:
    uses_time = compiled.uses_time or any(part.uses_time for part in parts)
    return Compiled(compiled.dtype, compiled.evaluate, uses_time)


def _literal(node: Literal) -> Compiled:
    value = node.value
    if type(value) is int and not INT64_MIN <= value <= INT64_MAX:
        raise ExpressionError("int64 (-2^63 to 2^63 - 1)", shown(value), node.column)
    if type(value) is float and value in (float("inf"), -float("inf")):
        raise ExpressionError("a number that float64 holds", "a larger one", node.column)
    return Compiled(_LITERALS[type(value)], lambda _s, _t: value)


_LITERALS: Final[dict[type, DataType | None]] = {
    int: Int64,
    float: Float64,
    str: String,
    bool: Bool,
    type(None): None,
}


def _values_of(node: Call) -> Sequence[Node]:
    """Return the arguments that are values: a unit isn't."""
    return node.arguments[1:] if node.function in WITH_UNIT and node.arguments else node.arguments
