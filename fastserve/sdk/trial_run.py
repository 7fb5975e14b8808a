"""Runs an on-demand view once, without a server: what `OnDemandFeatureView.test_run` does.

Inputs are given by source name as the Python values that mode ``python`` has (see `values`), in every mode;
what comes back is the checked result. On-demand sources that aren't given are computed from the same inputs.

Invariants
1. What a view computes here it computes when served: the same checks, the same columns, with one request in
   them.
2. The function's own exceptions come through as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastserve.errors import DefinitionError, shown
from fastserve.sdk.reference import OnDemandReference
from fastserve.sdk.sources import RequestSource
from fastserve.sdk.types import Field
from fastserve.sdk.values import copier, output_checker, value_checker

if TYPE_CHECKING:
    from fastserve.sdk.on_demand import OnDemandFeatureView, OnDemandSource, SourceInput

    View = OnDemandFeatureView[..., Any]

Row = dict[str, Any]


def run_view(view: View, inputs: object, request_timestamp: object = None) -> Row:
    """Return the features of one request, checked, by name in the order of the view's schema.

    Raises:
        DefinitionError: the inputs or the time aren't what the view takes.
        TypeError: the result isn't of the schema's types.
        ValueError: the result holds a value that its type can't, or a calculation has none.
        Exception: whatever the function raises.
    """
    if not isinstance(inputs, Mapping):
        raise _wrong(view, "inputs", "a dict of dicts by source name", inputs)
    _refuse_unknown(view, inputs)
    return _run(view, _Trial(inputs, _checked_time(view, request_timestamp), {}))


def source_fields(view: View) -> dict[str, dict[str, Field]]:
    """Return by name the sources that may be given for a view, those of its on-demand sources too."""
    known: dict[str, dict[str, Field]] = {}
    for each in (view, *view.views_below):
        for source in each.inputs:
            known.setdefault(source.name, {}).update({field.name: field for field in source.fields})
    return known


def _wrong(view: View, what: str, expected: str, got: object) -> DefinitionError:
    return DefinitionError(f"test_run of {view.name!r}: {what} (expected {expected}, got {shown(got)})")


def _refuse_unknown(view: View, inputs: Mapping[Any, Any]) -> None:
    known = source_fields(view)
    for name, values in inputs.items():
        if name not in known:
            raise _wrong(view, "input", f"one of the sources {', '.join(known)}", name)
        if not isinstance(values, Mapping):
            raise _wrong(view, f"input {name!r}", "a dict of its values by name", values)
        for key in values:
            if key not in known[name]:
                raise _wrong(view, f"input {name!r}", f"only {', '.join(known[name])}", key)


def _checked_time(view: View, time: object) -> datetime | None:
    if time is None:
        if any(each.needs_time for each in (view, *view.views_below)):
            raise _wrong(
                view, "request_timestamp", "a datetime with a time zone, which the view asks for", None
            )
        return None
    if not isinstance(time, datetime) or time.utcoffset() is None:
        raise _wrong(view, "request_timestamp", "a datetime with a time zone", time)
    return time.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What one run holds; ``computed`` has by id the on-demand sources that have run, each once."""

    inputs: Mapping[str, Any]
    time: datetime | None
    computed: dict[int, Row]


def _run(view: View, trial: _Trial) -> Row:
    rows = [
        _row(view, source, declared, trial)
        for source, declared in zip(view.sources, view.inputs, strict=True)
    ]
    names = [field.name for field in view.function_fields]
    values = dict(zip(names, _called(view, rows, trial.time), strict=True))
    for calculation in view.calculations:
        values[calculation.field.name] = calculation.evaluate(rows, trial.time or _UNASKED)
    return {name: values[name] for name in view.feature_names}


_UNASKED = datetime(1970, 1, 1, tzinfo=UTC)  # a view that asks for the time isn't run without one


def _row(view: View, source: OnDemandSource, declared: SourceInput, trial: _Trial) -> Row:
    given = trial.inputs.get(source.name)
    if given is None:
        if not isinstance(source, OnDemandReference):
            raise _wrong(view, f"input {source.name!r}", "a dict of its values by name", None)
        given = trial.computed.get(id(source.view))
        if given is None:
            given = trial.computed[id(source.view)] = _run(source.view, trial)
    is_request = isinstance(source, RequestSource)
    return {
        field.name: _value(view, source.name, field, given, required=is_request) for field in declared.fields
    }


def _value(view: View, source: str, field: Field, given: Mapping[str, Any], *, required: bool) -> Any:
    """Return an input's value, checked and fresh; a feature that isn't given is null, as without a row."""
    if required and field.name not in given:
        raise _wrong(view, f"input {source!r}", f"a value of {field.name!r}", list(given))
    try:
        return value_checker(field.dtype, f"{source}.{field.name}", nan=True)(given.get(field.name))
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"test_run of {view.name!r}: input {error}") from None


def _called(view: View, rows: Sequence[Row], time: datetime | None) -> list[Any]:
    from fastserve.sdk.on_demand import RequestContext

    if view.function is None:
        return []
    context = {"context": RequestContext(time or _UNASKED)} if view.takes_context else {}
    if view.mode == "python":
        return output_checker(view.function_fields)(view.function(*_fresh(view, rows), **context))
    from fastserve.sdk import on_demand_columns as columns

    arguments: list[Any] = [
        columns.input_columns(source.fields, [row]) for source, row in zip(view.inputs, rows, strict=True)
    ]
    if view.mode == "pandas":
        arguments = [
            columns.frame(source.fields, argument)
            for source, argument in zip(view.inputs, arguments, strict=True)
        ]
    result = view.function(*arguments, **context)
    return [values[0] for values in columns.checked_columns(view.function_fields, result, 1)]


def _fresh(view: View, rows: Sequence[Row]) -> list[Row]:
    """Return copies for the function, which may change them: calculations read the same rows."""
    copies = []
    for source, row in zip(view.inputs, rows, strict=True):
        made = [(field.name, copier(field.dtype)) for field in source.fields]
        copies.append({name: row[name] if copy is None else copy(row[name]) for name, copy in made})
    return copies
