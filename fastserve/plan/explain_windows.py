"""The windows of a view put into numbers: how each is cut, and what of a row it takes.

Invariants
1. Every window of a view is told once, however many features share it, and the elements of a series are
   windows like any other.
2. The bytes of all windows are those of the row's fixed part behind its header, less what fills it up. What
   stands in the variable-width part is told as bytes by name only: no layout knows how long it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fastserve.plan.views import MICROSECOND_NS, ViewPlan
from fastserve.sdk.durations import format_duration
from fastserve.tiles.aggregates import AggregateSpec, Component, WideComponent, wide_name
from fastserve.tiles.layout import WORD_BYTES, Storage
from fastserve.tiles.windows import Window


@dataclass(frozen=True, slots=True)
class WindowCost:
    """One window of one view: how it is cut, and how many numbers of a row it takes.

    ``hop`` is empty for a lifetime, which has no start that could move. Of components that are bytes,
    ``row_bytes`` has only where each slot's end.
    """

    view: str
    window: str
    hop: str
    interval: str
    leading_edge: str
    core: int
    tails: int
    heads: int
    slots: int
    components: tuple[str, ...]
    row_bytes: int


def duration_text(duration_ns: int) -> str:
    """Return a duration in nanoseconds in its largest whole unit."""
    return format_duration(timedelta(microseconds=duration_ns // MICROSECOND_NS))


def window_text(window: Window) -> str:
    """Return a window as features' names write it."""
    if window.is_lifetime:
        return "lifetime"
    size = duration_text(window.window_ns)
    return size if not window.offset_ns else f"{size}_offset_{duration_text(-window.offset_ns)}"


def spec_text(spec: AggregateSpec) -> str:
    """Return an aggregate as a reader takes it in: ``last(amount, n=3) over 7d``."""
    params = ", ".join(f"{name}={value}" for name, value in spec.params)
    function = f"{spec.function}({spec.column}{', ' if params else ''}{params})"
    over = window_text(spec.window)
    if spec.series:
        over = f"{len(spec.series)} windows of {duration_text(spec.window.window_ns)}"
    by = f" by {spec.secondary_key}" if spec.secondary_key is not None else ""
    return f"{function} over {over}{by}"


def window_costs(view: ViewPlan) -> list[WindowCost]:
    """Return what the windows of a view take, the shortest first; nothing for a view of attributes."""
    if view.schema is None:
        return []
    by_window: dict[Window, list[Component | WideComponent]] = {}
    components: list[Component | WideComponent] = [*view.schema.components, *view.schema.wide]
    for component in components:
        by_window.setdefault(component.window, []).append(component)
    order = sorted(by_window, key=lambda window: (window.window_ns, window.hop_ns, -window.offset_ns))
    return [_cost(view, window, by_window[window]) for window in order]


def _cost(view: ViewPlan, window: Window, components: list[Component | WideComponent]) -> WindowCost:
    return WindowCost(
        view=view.name,
        window=window_text(window),
        hop="" if window.is_lifetime else duration_text(window.hop_ns),
        interval=duration_text(window.interval_ns),
        leading_edge=view.view.leading_edge,
        core=int(window.has_core),
        tails=window.tails,
        heads=window.heads,
        slots=window.slots,
        components=tuple(map(_component_text, components)),
        row_bytes=sum(map(_fixed_bytes, components)),
    )


def _component_text(component: Component | WideComponent) -> str:
    if isinstance(component, Component):
        return f"{component.op.value}({component.column})"
    return f"bytes of {component.column}: {wide_name(component)}"


def _fixed_bytes(component: Component | WideComponent) -> int:
    if isinstance(component, Component):
        return component.words * WORD_BYTES
    return component.window.slots * Storage.BYTES.width_bytes
