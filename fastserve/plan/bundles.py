"""Bundles: views of one entity whose rows lie in one item, each in an attribute of its own.

Knows plans of views and no store. An item is read whole, or, where the services of a workspace read a small
part of it, with a projection that names their attributes: DynamoDB charges the whole item in any case, but
moves only what is named.

Invariants
1. Every view of a bundle has an attribute that nothing else in an item is called.
2. A bundle is a function of the definitions, as a `ViewPlan` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fastserve.errors import DefinitionError
from fastserve.plan.sizes import key_bytes, row_bytes
from fastserve.plan.views import ViewPlan
from fastserve.sdk.bundles import bundle_faults


@dataclass(frozen=True, slots=True)
class Bundle:
    """Views whose rows of one entity key are one item, in the order of their attributes."""

    name: str
    table: str
    views: tuple[ViewPlan, ...]

    @property
    def item_bytes(self) -> int:
        """The size of an item that has a row of every view, with what is assumed of them."""
        return key_bytes(self.views[0]) + sum(map(row_bytes, self.views))


def plan_bundles(views: Iterable[ViewPlan]) -> dict[str, Bundle]:
    """Return the bundles of a workspace by their tables.

    Raises:
        DefinitionError: a view can't be in its bundle.
    """
    views = list(views)
    for view, message in bundle_faults(plan.view for plan in views):
        raise DefinitionError(message, view.location)
    members: dict[str, list[ViewPlan]] = {}
    for plan in views:
        if plan.attribute is not None:
            members.setdefault(plan.table, []).append(plan)
    return {table: _bundle(table, plans) for table, plans in members.items()}


def _bundle(table: str, plans: list[ViewPlan]) -> Bundle:
    ordered = sorted(plans, key=lambda plan: plan.attribute or "")
    return Bundle(str(ordered[0].view.bundle), table, tuple(ordered))


def bundle_bytes(bundles: Mapping[str, Bundle]) -> dict[str, int]:
    """Return the size of each bundle's items by its table."""
    return {table: bundle.item_bytes for table, bundle in bundles.items()}
