"""What views of one bundle must have in common: they share an item for each entity key, and one read of it.

Knows views and not how they are stored.

Invariants:
1. Views of a bundle without faults have equal join keys, in the same order, lie in one store and are cached
   alike.
2. No view is named like a bundle: both are names of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from fastserve.sdk.durations import format_duration
from fastserve.sdk.views import FeatureView


def bundle_faults(views: Iterable[FeatureView]) -> Iterator[tuple[FeatureView, str]]:
    """Yield views that can't be in their bundles, each with what is wrong; invalid ones aren't looked at."""
    valid = [view for view in views if view.valid]
    by_name = {view.name: view for view in valid}
    first: dict[str, FeatureView] = {}
    for view in valid:
        if view.bundle is None:
            continue
        begun = first.setdefault(view.bundle, view)
        wrong = _name_fault(by_name.get(view.bundle)) if begun is view else _fault_beside(view, begun)
        if wrong is not None:
            yield view, f"FeatureView {view.name!r}: bundle {view.bundle!r} ({wrong})"


def _name_fault(namesake: FeatureView | None) -> str | None:
    if namesake is None:
        return None
    return (
        f"expected a name that no view has, as it names a table, got that of the view at {namesake.location}"
    )


def _fault_beside(view: FeatureView, first: FeatureView) -> str | None:
    if _keys(view) != _keys(first):
        return f"expected the join keys of {first.name!r} in their order, {_keys(first)}, got {_keys(view)}"
    if view.store != first.store:
        return f"expected the store of {first.name!r}, {first.store!r}, got {view.store!r}"
    if _times(view) != _times(first):
        return (
            f"expected to be cached as {first.name!r} is, for one item is read for both, {_times(first)}, "
            f"got {_times(view)}"
        )
    return None


def _keys(view: FeatureView) -> str:
    return ", ".join(f"{key.name}: {key.dtype!r}" for key in view.join_keys)


def _times(view: FeatureView) -> str:
    return f"cache_ttl {_shown(view.cache_ttl)}, stale_ttl {_shown(view.stale_ttl)}"


def _shown(duration: timedelta | None) -> str:
    return "None" if duration is None else format_duration(duration)
