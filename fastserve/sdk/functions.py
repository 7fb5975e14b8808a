"""The aggregate functions: which input types each takes, which parameters, and the type of its value.

Says nothing of how a function is computed: that is the tiles' business. A new function is one more line of
`FUNCTIONS`; one with parameters also names them there, and its name in a feature's name is its `label`.

Invariants:
1. `FUNCTIONS` holds what can be served, nothing else: what isn't in it is refused when it is defined.
2. A function that passed `check_function` has all its parameters, in the rule's order and with its defaults;
   two such functions have one label only when they are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from fastserve.sdk.checks import Checks
from fastserve.sdk.types import NUMERIC, SCALARS, Array, DataType, Float64, Int64, String, Timestamp

Parameter = int | float

N_MAX: Final = 1_000
SECONDARY_KEYS: Final = "secondary_keys"
"""The sorted keys of a view with an aggregation_secondary_key: views add it, authors don't write it."""


@dataclass(frozen=True, slots=True)
class AggregateFunction:
    """A function by its name, with its parameters in their order; a plain name does where there are none.

    Args:
        name: A function's name.
        params: Pairs of a parameter's name and its value.
    """

    name: str
    params: tuple[tuple[str, Parameter], ...] = ()

    @property
    def label(self) -> str:
        """The function as feature names write it: ``sum``, and with parameters ``last_3``."""
        if self.name == "approx_percentile":
            percentile = Decimal(repr(dict(self.params)["percentile"])) * 100
            text = f"{percentile.normalize():f}".replace(".", "_")
            return f"approx_percentile_p{text}{self._precision(100)}"
        if self.name == "approx_count_distinct":
            return f"{self.name}{self._precision(8)}"
        return "_".join([self.name, *(str(value).replace(".", "_") for _, value in self.params)])

    def _precision(self, default: int) -> str:
        precision = dict(self.params).get("precision", default)
        return "" if precision == default else f"_precision_{precision}"


def last(n: int) -> AggregateFunction:
    """Return the function that gives the last ``n`` values, ascending by time.

    Args:
        n: From 1 to 1,000.
    """
    return AggregateFunction("last", (("n", n),))


def first(n: int) -> AggregateFunction:
    """Return the function that gives the first ``n`` values, ascending by time.

    Args:
        n: From 1 to 1,000.
    """
    return AggregateFunction("first", (("n", n),))


def last_distinct(n: int) -> AggregateFunction:
    """Return the function that gives the ``n`` different values that occurred last, ascending by that.

    Args:
        n: From 1 to 1,000.
    """
    return AggregateFunction("last_distinct", (("n", n),))


def first_distinct(n: int) -> AggregateFunction:
    """Return the function that gives the ``n`` different values that occurred first, ascending by that.

    Args:
        n: From 1 to 1,000.
    """
    return AggregateFunction("first_distinct", (("n", n),))


def approx_count_distinct(precision: int = 8) -> AggregateFunction:
    """Return the function that counts different values approximately.

    Args:
        precision: From 4 to 16; more is larger and more exact.
    """
    return AggregateFunction("approx_count_distinct", (("precision", precision),))


def approx_percentile(percentile: float, precision: int = 100) -> AggregateFunction:
    """Return the function of an approximate percentile.

    Args:
        percentile: From 0 to 1; the median is 0.5.
        precision: From 20 to 500; more is larger and more exact.
    """
    return AggregateFunction("approx_percentile", (("percentile", percentile), ("precision", precision)))


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """One parameter: its bounds, both included, and its default (None: it must be given)."""

    name: str
    low: int
    high: int
    whole: bool = True
    default: Parameter | None = None

    @property
    def expected(self) -> str:
        """What a value must be."""
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high:,}"

    def takes(self, value: object) -> bool:
        """Tell whether that is a value of the parameter."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class FunctionRule:
    """What a function takes (None: any type) and gives, and its parameters.

    ``params_optional`` is for functions that mean something else, and something, without any.
    """

    accepts: tuple[DataType, ...] | None
    output: Callable[[DataType, Mapping[str, Parameter]], DataType]
    params: tuple[ParameterRule, ...] = field(default=())
    params_optional: bool = False

    def takes(self, dtype: DataType) -> bool:
        """Tell whether the function can be computed over a column of that type."""
        return self.accepts is None or dtype in self.accepts


def _same(dtype: DataType, _params: Mapping[str, Parameter]) -> DataType:
    return dtype


def _one_or_many(dtype: DataType, params: Mapping[str, Parameter]) -> DataType:
    return Array(dtype) if params else dtype


_N: Final = (ParameterRule("n", 1, N_MAX),)
_SPREAD: Final = FunctionRule(NUMERIC, lambda _dtype, _params: Float64)

FUNCTIONS: Final[dict[str, FunctionRule]] = {
    "count": FunctionRule(None, lambda _dtype, _params: Int64),
    # A sum of float32 in float32 loses cents after 10 million; the state is 8 bytes wide anyway.
    "sum": FunctionRule(NUMERIC, lambda dtype, _params: Int64 if dtype == Int64 else Float64),
    "mean": FunctionRule(NUMERIC, lambda _dtype, _params: Float64),
    "min": FunctionRule((*NUMERIC, Timestamp, String), _same),
    "max": FunctionRule((*NUMERIC, Timestamp, String), _same),
    "var_pop": _SPREAD,
    "var_samp": _SPREAD,
    "stddev_pop": _SPREAD,
    "stddev_samp": _SPREAD,
    "last": FunctionRule(SCALARS, _one_or_many, _N, params_optional=True),
    "first": FunctionRule(SCALARS, _one_or_many, _N, params_optional=True),
    "last_distinct": FunctionRule(SCALARS, _one_or_many, _N),
    "first_distinct": FunctionRule(SCALARS, _one_or_many, _N),
    "approx_count_distinct": FunctionRule(
        SCALARS, lambda _dtype, _params: Int64, (ParameterRule("precision", 4, 16, default=8),)
    ),
    "approx_percentile": FunctionRule(
        NUMERIC,
        lambda _dtype, _params: Float64,
        (
            ParameterRule("percentile", 0, 1, whole=False),
            ParameterRule("precision", 20, 500, default=100),
        ),
    ),
}
_OWN: Final = {SECONDARY_KEYS: FunctionRule(None, _same)}
# What other systems call them.
_SYNONYMS: Final = {
    "avg": "mean",
    "average": "mean",
    "minimum": "min",
    "maximum": "max",
    "total": "sum",
    "variance": "var_samp",
    "var": "var_samp",
    "stddev": "stddev_samp",
    "std": "stddev_samp",
    "count_distinct": "approx_count_distinct",
    "percentile": "approx_percentile",
    "last_value": "last",
    "first_value": "first",
}


def rule_of(function: AggregateFunction) -> FunctionRule:
    """Return the rule of a function that passed `check_function`."""
    return FUNCTIONS.get(function.name) or _OWN[function.name]


def check_function(checks: Checks, value: object) -> AggregateFunction | None:
    """Return the function named or given, with every parameter, or None with a fault."""
    function = AggregateFunction(value) if isinstance(value, str) else value
    expected = ", ".join(FUNCTIONS)
    if not isinstance(function, AggregateFunction) or not _is_known(function.name):
        name = value.lower() if isinstance(value, str) else getattr(value, "__name__", None)
        meant = name if name in FUNCTIONS else _SYNONYMS.get(name or "")
        hint = f'; did you mean "{meant}"?' if meant else ""
        checks.wrong("function", f"one of {expected}{hint}", value)
        return None
    rules = rule_of(function).params
    given = _given(checks, function, rules)
    if given is None:
        return None
    if not given and rule_of(function).params_optional:
        return AggregateFunction(function.name)
    params: list[tuple[str, Parameter]] = []
    for rule in rules:
        number = given.get(rule.name, rule.default)
        if not rule.takes(number):
            example = f"{function.name}({', '.join(each.name for each in rules)})"
            what = f"{function.name}: {rule.name}"
            missing = f", as in {example}" if rule.name not in given else ""
            checks.wrong(what, rule.expected + missing, number)
            return None
        params.append((rule.name, number))  # type: ignore[arg-type] # `takes` looked
    return AggregateFunction(function.name, tuple(params))


def _is_known(name: object) -> bool:
    return isinstance(name, str) and (name in FUNCTIONS or name in _OWN)


def _given(
    checks: Checks, function: AggregateFunction, rules: tuple[ParameterRule, ...]
) -> dict[str, Any] | None:
    """Return the parameters by name, or None with a fault."""
    names = [rule.name for rule in rules]
    try:
        given = dict(function.params)
    except (TypeError, ValueError):
        given = {"": 0}
    if set(given) <= set(names):
        return given
    took = ", ".join(names) or "no parameters"
    checks.wrong(f"function {function.name!r}", took, function.params)
    return None


def output_type(function: AggregateFunction, dtype: DataType) -> DataType:
    """Return the type of the function's value over a column of a type that it takes."""
    return rule_of(function).output(dtype, dict(function.params))
