"""The aggregate functions: which input types each takes, which parameters, and the type of its value.

Says nothing of how a function is computed: that is the tiles' business. A new function is one more line of
`FUNCTIONS`; one with parameters also names them there, and its name in a feature's name is its `label`.

Invariants:
1. `FUNCTIONS` holds what can be served, nothing else: what isn't in it is refused when it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastserve.sdk.checks import Checks
from fastserve.sdk.types import NUMERIC, DataType, Float64, Int64, Timestamp

Parameter = int | float


@dataclass(frozen=True, slots=True)
class AggregateFunction:
    """A function by its name, with its parameters in their order; a plain name does where there are none."""

    name: str
    params: tuple[tuple[str, Parameter], ...] = ()

    @property
    def label(self) -> str:
        """The function as feature names write it: ``sum``, and with parameters ``last_3``."""
        return "_".join([self.name, *(str(value).replace(".", "_") for _, value in self.params)])


@dataclass(frozen=True, slots=True)
class FunctionRule:
    """What a function takes (None: any type) and gives; ``params`` are the names of its parameters."""

    accepts: tuple[DataType, ...] | None
    output: Callable[[DataType, Mapping[str, Parameter]], DataType]
    params: tuple[str, ...] = field(default=())

    def takes(self, dtype: DataType) -> bool:
        """Tell whether the function can be computed over a column of that type."""
        return self.accepts is None or dtype in self.accepts


FUNCTIONS: Final[dict[str, FunctionRule]] = {
    "count": FunctionRule(None, lambda _dtype, _params: Int64),
    # A sum of float32 in float32 loses cents after 10 million; the state is 8 bytes wide anyway.
    "sum": FunctionRule(NUMERIC, lambda dtype, _params: Int64 if dtype == Int64 else Float64),
    "mean": FunctionRule(NUMERIC, lambda _dtype, _params: Float64),
    "min": FunctionRule((*NUMERIC, Timestamp), lambda dtype, _params: dtype),
    "max": FunctionRule((*NUMERIC, Timestamp), lambda dtype, _params: dtype),
}
# What other systems call them.
_SYNONYMS: Final = {"avg": "mean", "average": "mean", "minimum": "min", "maximum": "max", "total": "sum"}


def check_function(checks: Checks, value: object) -> AggregateFunction | None:
    """Return the function named or given, or None with a fault."""
    function = AggregateFunction(value) if isinstance(value, str) else value
    expected = ", ".join(FUNCTIONS)
    if not isinstance(function, AggregateFunction) or function.name not in FUNCTIONS:
        name = value.lower() if isinstance(value, str) else None
        meant = name if name in FUNCTIONS else _SYNONYMS.get(name or "")
        hint = f'; did you mean "{meant}"?' if meant else ""
        checks.wrong("function", f"one of {expected}{hint}", value)
        return None
    names = tuple(name for name, _ in function.params)
    if names != FUNCTIONS[function.name].params:
        took = ", ".join(FUNCTIONS[function.name].params) or "no parameters"
        checks.wrong(f"function {function.name!r}", took, function.params)
        return None
    return function


def output_type(function: AggregateFunction, dtype: DataType) -> DataType:
    """Return the type of the function's value over a column of a type that it takes."""
    return FUNCTIONS[function.name].output(dtype, dict(function.params))
