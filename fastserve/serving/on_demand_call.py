"""One on-demand view made into a call: inputs in, checked values out; its author's code runs in here only.

The same call runs in the worker (`on_demand`) and in a helper process, so it knows neither batches nor plans.

Invariants
1. What a call returns has been checked against the view's schema; what it raises is the author's fault or
   the check's, whatever class it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from fastserve.errors import InvariantError, RequestError
from fastserve.sdk.on_demand import OnDemandFeatureView, RequestContext
from fastserve.sdk.on_demand_columns import checked_columns, frame
from fastserve.sdk.types import Field
from fastserve.sdk.values import output_checker

KIND_CHARS_MAX = 64
TEXT_CHARS_MAX = 500
"""So much of an exception's text, and of its class's name, is told to the caller."""

Line = list[Any]
View = OnDemandFeatureView[..., Any]


class ViewCall(Protocol):
    """A view's function with its check; of a view that has calculations, the part that the function gives."""

    is_vectorized: bool
    """Whether a call takes the lines of a batch (dicts of arrays) rather than one (dicts of values)."""

    takes_context: bool
    """Whether the function asks for the `RequestContext`; without, ``moment`` is not looked at."""

    def line_caller(self, moment: RequestContext | None) -> Callable[..., Line]:
        """Return the call for one line: a dict per source in, the values in the attributes' order out."""

    def batch_caller(self, moment: RequestContext | None) -> Callable[[int, Sequence[Any]], list[Line]]:
        """Return the call for many lines: their number and arrays per source in, each line's values out."""


def compile_call(view: View) -> ViewCall | None:
    """Return the view's function as a call; None for a view of calculations alone."""
    if view.function is None:
        return None
    fields = view.function_fields
    return PythonCall(view, fields) if view.mode == "python" else ColumnsCall(view, fields)


def _with_context(view: View, moment: RequestContext | None) -> Callable[..., Any]:
    function = view.function
    if function is None:
        raise InvariantError(f"view {view.name} has no function")
    return partial(function, context=moment) if view.takes_context else function


def _checked(function: Callable[..., Any], check: Callable[[Any], Line]) -> Callable[..., Line]:
    return lambda *sources: check(function(*sources))


class PythonCall:
    """Mode ``python``: one line's dicts in, a dict out."""

    is_vectorized = False

    def __init__(self, view: View, fields: Sequence[Field]) -> None:
        self._view = view
        self._check = output_checker(fields)
        self.takes_context = view.takes_context
        self._plain = None if view.takes_context else _checked(_with_context(view, None), self._check)

    def line_caller(self, moment: RequestContext | None) -> Callable[..., Line]:
        """As `ViewCall.line_caller`."""
        return self._plain or _checked(_with_context(self._view, moment), self._check)

    def batch_caller(self, moment: RequestContext | None) -> Callable[[int, Sequence[Any]], list[Line]]:
        """As `ViewCall.batch_caller`; not asked for."""
        raise InvariantError(f"view {self._view.name} takes one line")


class ColumnsCall:
    """Modes ``numpy`` and ``pandas``: dicts of arrays, or frames, in; a dict of arrays or a frame out."""

    is_vectorized = True

    def __init__(self, view: View, fields: Sequence[Field]) -> None:
        self._view = view
        self._fields = fields
        self.takes_context = view.takes_context
        self._frames = [source.fields for source in view.inputs] if view.mode == "pandas" else None

    def line_caller(self, moment: RequestContext | None) -> Callable[..., Line]:
        """As `ViewCall.line_caller`; not asked for."""
        raise InvariantError(f"view {self._view.name} takes many lines")

    def batch_caller(self, moment: RequestContext | None) -> Callable[[int, Sequence[Any]], list[Line]]:
        """As `ViewCall.batch_caller`."""
        function = _with_context(self._view, moment)

        def call(lines: int, sources: Sequence[Any]) -> list[Line]:
            if self._frames is not None:
                sources = [frame(names, each) for names, each in zip(self._frames, sources, strict=True)]
            columns = checked_columns(self._fields, function(*sources), lines)
            return [list(line) for line in zip(*columns, strict=True)]

        return call


def refusal(view: str, kind: str, text: str) -> RequestError:
    """Return what the caller is told of an exception in the view's code."""
    return RequestError(400, f"{kind}: {text[:TEXT_CHARS_MAX]} (when evaluating UDF {view})")


def refusal_of(view: str, error: BaseException) -> RequestError:
    """Return what the caller is told of this exception."""
    return refusal(view, kind_of(error), text_of(error))


def kind_of(error: BaseException) -> str:
    """Return the name of an exception's class, as much of it as is told."""
    return said(lambda: type(error).__name__[:KIND_CHARS_MAX], "Exception")


def text_of(error: BaseException) -> str:
    """Return an exception's text, as much of it as is told."""
    return said(lambda: str(error)[:TEXT_CHARS_MAX], "no text")


def said(text: Callable[[], str], otherwise: str) -> str:
    """Return what an exception says of itself; its class is the author's, and so may fail itself."""
    try:
        return str.__str__(text())  # not of a class of the author's
    except BaseException:  # noqa: BLE001 - the author's code
        return otherwise


def over_time(view: str, limit_s: float, took_s: float | None = None) -> RequestError:
    """Return what the caller is told when a view's code took longer than its limit."""
    took = "it was stopped" if took_s is None else f"it took {took_s * 1000:.3g} ms"
    return RequestError(
        504, f"On-demand view `{view}` took longer than its limit of {limit_s * 1000:g} ms: {took}"
    )
