"""The rules that an on-demand view's parts must keep together, each a function that reports what breaks it.

Invariants:
1. A rule looks only at parts that are valid by themselves: one mistake is one message.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fastserve.sdk.calculation import Calculation
from fastserve.sdk.checks import Checks
from fastserve.sdk.features import Attribute
from fastserve.sdk.types import Field

if TYPE_CHECKING:
    from fastserve.sdk.on_demand import OnDemandFeatureView

CONTEXT: Final = "context"
_FUNCTION_EXPECTED: Final = "a function that returns its result at once"


def check_function(checks: Checks, value: object) -> Callable[..., Any] | None:
    """Return the function that was decorated, or None with a fault."""
    if not callable(value) or isinstance(value, type):
        checks.wrong("decorated object", "a function", value)
        return None
    called = getattr(type(value), "__call__", None)  # noqa: B004 - of an object that is called like a function
    for is_other, kind in _OTHER_FUNCTIONS:
        if is_other(value) or is_other(called):
            checks.fault(f"decorated object (expected {_FUNCTION_EXPECTED}, got {kind})")
            return None
    return value


_OTHER_FUNCTIONS: Final[tuple[tuple[Callable[[Any], bool], str], ...]] = (
    (inspect.iscoroutinefunction, "a coroutine function (async def)"),
    (inspect.isasyncgenfunction, "an asynchronous generator function"),
    (inspect.isgeneratorfunction, "a generator function (yield)"),
)


def takes_context(function: Callable[..., Any]) -> bool:
    """Return whether the function has a parameter named ``context``."""
    return any(parameter.name == CONTEXT for parameter in _parameters(function))


def check_view(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    """Report every rule that the view breaks."""
    for rule in _RULES:
        rule(checks, view)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return []


def _source_names_differ(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    seen: set[str] = set()
    for source in view.sources:
        if source.valid and source.name in seen:
            checks.fault(
                f"sources: the name {source.name!r} stands there twice "
                '(expected different names; with_name("…"), or a RequestSource\'s name="…", gives another)'
            )
        seen.add(source.name)


def _request_fields_agree(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    first: dict[str, Field] = {}
    for field in view.request_fields:
        other = first.setdefault(field.name, field)
        if field.valid and other.valid and other.dtype != field.dtype:
            checks.wrong(
                f"request field {field.name!r}", f"{other.dtype!r} as before", field.dtype, field.location
            )


def _feature_names_differ(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    seen: set[str] = set()
    for feature in view.features:
        if feature.valid and feature.name in seen:
            checks.fault(
                f"the feature name {feature.name!r} stands there twice (expected different names)",
                feature.location,
            )
        seen.add(feature.name)


def _function_and_attributes_belong_together(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    if not checks.valid:
        return
    if view.function is None:
        for feature in view.features:
            if isinstance(feature, Attribute):
                message = "only Calculation without a function, which on_demand_feature_view decorates"
                checks.wrong("features", message, feature, feature.location)
    elif all(isinstance(feature, Calculation) for feature in view.features):
        checks.fault(
            "features (expected at least one Attribute that the function returns, got calculations only; "
            "OnDemandFeatureView(…) makes a view without a function)"
        )


def _function_takes_the_sources(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    if view.function is None or not view.sources or not checks.valid:
        return
    parameters = _parameters(view.function)
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    if CONTEXT in names and names[-1] != CONTEXT:
        checks.fault(f"parameter context (expected it to be the last, got {names[-1]!r} after it)")
        return
    try:
        keywords = {CONTEXT: None} if view.takes_context else {}  # it is passed by keyword
        inspect.signature(view.function).bind(*[None] * len(view.sources), **keywords)
    except TypeError:
        context = " and context" if view.takes_context else ""
        expected = f"{len(view.sources)}, one for each source{context}"
        checks.fault(f"parameters of the function (expected {expected}, got {', '.join(names) or 'none'})")
        return
    except ValueError:  # some builtins have no signature
        return
    _parameters_stand_as_the_sources(checks, view, parameters)


def _parameters_stand_as_the_sources(
    checks: Checks, view: OnDemandFeatureView[..., Any], parameters: Sequence[inspect.Parameter]
) -> None:
    """Refuse a parameter with the name of another source: it would get the wrong one, by its position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    sources = [source.name for source in view.sources]
    for name, source in zip(names, sources, strict=False):
        if name != source and name in sources:
            expected = f"names of sources to stand as in sources: {', '.join(sources)}"
            checks.fault(f"parameters of the function (expected {expected}; got {', '.join(names)})")
            return


def _pandas_is_there(checks: Checks, view: OnDemandFeatureView[..., Any]) -> None:
    if view.mode == "pandas" and importlib.util.find_spec("pandas") is None:
        checks.fault('mode "pandas" (expected the Python package pandas to be installed, got none)')


_RULES: Final[tuple[Callable[[Checks, OnDemandFeatureView[..., Any]], None], ...]] = (
    _source_names_differ,
    _request_fields_agree,
    _feature_names_differ,
    _function_and_attributes_belong_together,
    _function_takes_the_sources,
    _pandas_is_there,
)
