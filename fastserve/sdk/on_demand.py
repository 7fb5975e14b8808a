"""`OnDemandFeatureView`: features that a Python function computes at request time, and its decorator.

Its sources are passed to the function by position: what came with the request (`RequestSource`), features of
other views (a `FeatureView`, whole or a reference), and what other on-demand views computed. The rules that
its parts must keep together stand in `on_demand_rules`; how a value is checked, in `values`.

Invariants:
1. The decorated object keeps the function's parameters and result for type checkers and for callers: calling
   it calls the function, unchecked.
2. A view refers only to views that were made before it, and nothing can be changed afterwards: there is no
   cycle among them.
3. A valid view's function takes as many arguments as there are sources, and ``context`` at most beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

from fastserve.errors import InvariantError
from fastserve.sdk.calculation import BoundCalculation, Calculation
from fastserve.sdk.checks import NAME_UNKNOWN, Checks, Definition
from fastserve.sdk.features import Attribute
from fastserve.sdk.on_demand_rules import check_function, check_view, takes_context
from fastserve.sdk.reference import FeatureViewReference, OnDemandReference
from fastserve.sdk.sources import RequestSource
from fastserve.sdk.types import INVALID, DataType, Field
from fastserve.sdk.views import FeatureView

P = ParamSpec("P")
R = TypeVar("R")
Mode = Literal["python", "numpy", "pandas"]
Isolation = Literal["inline", "process"]
MODES: Final = ("python", "numpy", "pandas")
ISOLATIONS: Final = ("inline", "process")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a function may know of the request beside its sources: pass it as the parameter ``context``."""

    request_timestamp: datetime
    """When the request came, in UTC."""


class OnDemandFeatureView(Definition, Generic[P, R]):
    """Features computed at request time: by the function decorated, or by calculations alone.

    Authors decorate a function with `on_demand_feature_view`; without a function, for a view that has only
    `Calculation` features, this class is called.

    Args:
        name: A view's name; the features of its vector are named ``<view>.<feature>``.
        sources: RequestSource, feature views or on-demand views, or references of views.
        features: `Calculation` features.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    sources: tuple[OnDemandSource, ...]
    inputs: tuple[SourceInput, ...]
    views_below: tuple[OnDemandFeatureView[..., Any], ...]
    """The on-demand views that it reads, at any depth, each once and after those that it reads itself."""
    features: tuple[OnDemandFeature, ...]
    feature_names: tuple[str, ...]
    mode: Mode
    time_limit: timedelta | None
    isolation: Isolation
    function: Callable[..., Any] | None
    takes_context: bool
    calculations: tuple[BoundCalculation, ...]
    """The features that are expressions, in schema order."""

    def __init__(
        self: OnDemandFeatureView[..., Mapping[str, Any]],
        name: str,
        sources: Sequence[AnySource] | AnySource,
        features: Sequence[Calculation],
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("OnDemandFeatureView", name)
        self.name = checks.identifier("name", name)
        self._fill(
            checks, sources, features, None, _Options("python", None, "inline"), (description, tags, owner)
        )

    def _fill(
        self,
        checks: Checks,
        sources: object,
        features: object,
        function: Callable[..., Any] | None,
        options: _Options,
        description: tuple[object, object, object],
    ) -> None:
        self._describe(checks, *description)
        given: tuple[AnySource, ...] = checks.instances("sources", sources, _SOURCES, _SOURCE_EXPECTED)
        self.sources = tuple(_reference(source) for source in given)
        self.inputs = tuple(_input(source) for source in self.sources)
        self.views_below = _views_below(self.sources)
        self.features = checks.instances("features", features, _FEATURES, "Attribute or Calculation")
        self.feature_names = tuple(feature.name for feature in self.features)
        self.mode = _literal(checks.choice("mode", options.mode, MODES), MODES)
        self.time_limit = checks.optional_duration("time_limit", options.time_limit)
        self.isolation = _literal(checks.choice("isolation", options.isolation, ISOLATIONS), ISOLATIONS)
        self.function = function
        if function is not None:  # for help(), inspect.signature() and readers
            self.__wrapped__ = function
            self.__doc__ = function.__doc__
        self.takes_context = function is not None and takes_context(function)
        parts_valid = all(part.valid for part in (*self.sources, *self.features))
        check_view(checks, self)
        self.calculations = tuple(self._bound_calculations(checks)) if checks.valid and parts_valid else ()
        self._register(checks, parts_valid=parts_valid)

    def _bound_calculations(self, checks: Checks) -> Iterator[BoundCalculation]:
        scope = [(source.name, source.fields) for source in self.inputs]
        for feature in self.features:
            if isinstance(feature, Calculation):
                yield feature.bound(checks, scope)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function as it was written; nothing is checked or converted.

        Raises:
            TypeError: the view has no function.
        """
        if self.function is None:
            raise TypeError(f"{self!r} has calculations and no function; call test_run")
        result: R = self.function(*args, **kwargs)
        return result

    def test_run(
        self, inputs: Mapping[str, Any], request_timestamp: datetime | None = None
    ) -> dict[str, Any]:
        """Compute the features of one request without a server, checked as a server checks them.

        ``inputs`` holds by source name (a request source's is ``request`` unless it has another) a dict of
        its values: int, float, str, bool, datetime with a zone, list, dict, None for null, in every mode.
        Features left out of a view's dict are null. On-demand sources that are left out are computed.

        Raises:
            DefinitionError: the inputs or the time aren't what the view takes.
            TypeError: the result isn't of the schema's types.
            ValueError: the result holds a value that its type can't.
            Exception: whatever the function raises.
        """
        from fastserve.sdk.trial_run import run_view

        return run_view(self, inputs, request_timestamp)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The features that the function returns."""
        return tuple(feature for feature in self.features if isinstance(feature, Attribute))

    @property
    def function_fields(self) -> tuple[Field, ...]:
        """What the function returns: the features that are attributes, in schema order."""
        return tuple(attribute.column for attribute in self.attributes)

    @property
    def needs_time(self) -> bool:
        """Whether the request's time is asked for, by the function or by a calculation."""
        return self.takes_context or any(calculation.uses_time for calculation in self.calculations)

    @property
    def output_fields(self) -> tuple[Field, ...]:
        """All features with their types, in schema order."""
        return tuple(Field(name, self.output_type(name)) for name in self.feature_names)

    @property
    def request_fields(self) -> tuple[Field, ...]:
        """The fields of its own request sources."""
        own = (source.schema for source in self.sources if isinstance(source, RequestSource))
        return tuple(field for schema in own for field in schema)

    def feature(self, name: str) -> OnDemandFeature:
        """Return the feature of that name.

        Raises:
            InvariantError: the view has none; selections are checked when they are made.
        """
        try:
            return self.features[self.feature_names.index(name)]
        except ValueError:
            raise InvariantError(f"view {self.name} has no feature {name}") from None

    def output_type(self, name: str) -> DataType:
        """Return the type of a feature's value.

        Raises:
            InvariantError: the view has no such feature.
        """
        feature = self.feature(name)
        if isinstance(feature, Attribute):
            return feature.dtype
        bound = {calculation.field.name: calculation.field.dtype for calculation in self.calculations}
        return bound.get(name, INVALID)

    def __getitem__(self, features: list[str] | tuple[str, ...]) -> OnDemandReference:
        """Return a reference to only these of the features."""
        return OnDemandReference(self)[features]

    def with_name(self, name: str) -> OnDemandReference:
        """Return a reference whose features are named ``<name>.<feature>``."""
        return OnDemandReference(self).with_name(name)


AnySource = (
    RequestSource | FeatureView | FeatureViewReference | OnDemandFeatureView[..., Any] | OnDemandReference
)
OnDemandSource = RequestSource | FeatureViewReference | OnDemandReference
OnDemandFeature = Attribute | Calculation
_SOURCES: Final = (RequestSource, FeatureView, FeatureViewReference, OnDemandFeatureView, OnDemandReference)
_SOURCE_EXPECTED: Final = "RequestSource, FeatureView or OnDemandFeatureView, whole or selected from"
_FEATURES: Final = (Attribute, Calculation)


@dataclass(frozen=True, slots=True)
class SourceInput:
    """One source as the function gets it: a dict (or columns) of these fields."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class _Options:
    mode: object
    time_limit: object
    isolation: object


def on_demand_feature_view(
    *,
    sources: Sequence[AnySource] | AnySource,
    features: Sequence[OnDemandFeature],
    mode: Mode = "python",
    name: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    owner: str | None = None,
    time_limit: timedelta | None = None,
    isolation: Isolation = "inline",
) -> Callable[[Callable[P, R]], OnDemandFeatureView[P, R]]:
    """Make the decorated function an on-demand feature view.

    The function takes the sources by position, in the order of ``sources``, and a `RequestContext` when it
    has a parameter ``context`` (its last). In mode ``python`` each source is a dict of one request's values
    and the result is a dict of the features that are `Attribute`; in mode ``numpy`` dicts of arrays over
    several requests, in mode ``pandas`` data frames.

    Args:
        sources: What the function gets, by position: request sources, views, references of views, and
            on-demand views.
        features: What the function returns (`Attribute`), and expressions beside it (`Calculation`).
        mode: ``python``, ``numpy`` or ``pandas``.
        name: The view's name; by default the function's.
        description: For readers.
        tags: For readers.
        owner: For readers.
        time_limit: How long a call may take.
        isolation: ``inline``, or ``process``: in a helper process, which is ended past the limit.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    def decorate(function: Callable[P, R]) -> OnDemandFeatureView[P, R]:
        given = name if name is not None else getattr(function, "__name__", None)
        checks = Checks("OnDemandFeatureView", given)
        view: OnDemandFeatureView[P, R] = object.__new__(OnDemandFeatureView)
        view.name = checks.identifier("name", given) if given is not None else NAME_UNKNOWN
        checked = check_function(checks, function)
        options = _Options(mode, time_limit, isolation)
        view._fill(  # noqa: SLF001 - the class's other constructor
            checks, sources, features, checked, options, (description, tags, owner)
        )
        return view

    return decorate


def _reference(source: AnySource) -> OnDemandSource:
    if isinstance(source, FeatureView):
        return FeatureViewReference(source)
    return OnDemandReference(source) if isinstance(source, OnDemandFeatureView) else source


def _views_below(sources: Sequence[OnDemandSource]) -> tuple[OnDemandFeatureView[..., Any], ...]:
    read = [source.view for source in sources if isinstance(source, OnDemandReference)]
    return tuple({id(view): view for top in read for view in (*top.views_below, top)}.values())


def _input(source: OnDemandSource) -> SourceInput:
    if isinstance(source, RequestSource):
        return SourceInput(source.name, source.schema)
    if not source.valid:  # its faults have been told, and its features may have no name that is one
        return SourceInput(source.name, ())
    return SourceInput(
        source.name, tuple(Field(feature, source.view.output_type(feature)) for feature in source.features)
    )


_L = TypeVar("_L", bound=str)


def _literal(value: str, choices: Sequence[_L]) -> _L:
    return choices[choices.index(value)]
