"""Bringing a store up to a feature repo: what is missing, what changed, what can't be changed.

`plan_apply` only looks; `execute` creates the tables and records the definitions. Rows are written by
`ingest.materialize`; nothing is ever dropped or deleted here.

A streamed view of aggregates has a second table, for its blocks. Blocks are numbered by their length and
tiles cut by the aggregation interval: changing either would leave what was pushed where no request looks for
it, so that is refused.

Invariants
1. A plan with incompatible changes is not executed, not even in part.
2. Executing a plan twice is executing it once.
3. What a change means is said before it is made (`changes`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastserve.errors import DefinitionError
from fastserve.ingest.changes import StoredRows, ViewChange, describe_change, stored_rows, table_uses
from fastserve.ingest.definition import definition
from fastserve.ingest.registry import Registry
from fastserve.plan.stores import MAIN_STORE
from fastserve.plan.streams import StreamPlan
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from fastserve.store.mixed import prefixes_of
from fastserve.tiles.blocks import block_schema


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """What applying a repo to a store means; ``orphans`` were applied once and are no longer defined."""

    workspace: str
    plans: tuple[ViewPlan, ...]
    tables: tuple[TableSpec, ...]
    changes: tuple[ViewChange, ...]
    orphans: tuple[str, ...]

    @property
    def incompatible(self) -> tuple[ViewChange, ...]:
        """The changes that can't be made."""
        return tuple(change for change in self.changes if change.state == "incompatible")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.tables and all(change.state == "unchanged" for change in self.changes)

    def lines(self) -> list[str]:
        """Return the plan in words, a line for each thing."""
        homes = {
            table: f" in store {view.store!r}" for view in self.plans if view.store for table in view.tables
        }
        created = [f"table {table.name}: to be created{homes.get(table.name, '')}" for table in self.tables]
        orphans = [f"view {name}: no longer defined; its table is left alone" for name in self.orphans]
        return [*created, *map(str, self.changes), *orphans]


def table_spec(view: ViewPlan) -> TableSpec:
    """Return the table that a view's rows lie in."""
    names = [KeyAttribute(name, "N" if kind == "N" else "S") for name, kind in view.key_attributes]
    return TableSpec(view.table, *names)


def table_specs(view: ViewPlan) -> list[TableSpec]:
    """Return the tables of a view: that of its rows, and that of its blocks if it has any."""
    return [table_spec(view), *([] if view.stream is None else [stream_table_spec(view.stream)])]


def stream_table_spec(stream: StreamPlan) -> TableSpec:
    """Return the table that a streamed view's blocks lie in."""
    return TableSpec(stream.table)


async def plan_apply(repo: Repo, store: OnlineStore, *, workspace: str | None = None) -> ApplyPlan:
    """Compare a repo with what the store has; views whose rows somebody else writes are left out.

    Raises:
        DefinitionError: a view can't be compiled.
        StoreError: the store can't be asked.
    """
    workspace = workspace or repo.workspace
    prefixes = prefixes_of(store)
    own = [view for view in repo.views.values() if not view.is_external]
    plans = [plan_view(view, workspace, prefixes) for view in own]
    registry = Registry(store, workspace)
    known = await registry.exists()
    applied = await registry.definitions([plan.name for plan in plans]) if known else {}
    orphans = [name for name in (await registry.views() if known else []) if name not in repo.views]
    taken = table_uses({**applied, **(await registry.definitions(orphans) if known else {})})
    specs = {spec.name: spec for plan in plans for spec in table_specs(plan)}
    existing = await store.describe_tables(list(specs))
    missing = [spec for name, spec in specs.items() if existing[name] is None]
    tables = [*missing, *([] if known or not plans else [TableSpec(registry.table)])]
    stored = await stored_rows(registry, plans, applied) if known else {}
    changes = [
        describe_change(
            plan,
            definition(plan),
            applied.get(plan.name),
            {spec: existing[spec.name] for spec in table_specs(plan)},
            stored.get(plan.name, StoredRows()),
            taken,
        )
        for plan in plans
    ]
    return ApplyPlan(workspace, tuple(plans), tuple(tables), tuple(changes), tuple(orphans))


async def execute(plan: ApplyPlan, store: OnlineStore, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
    """Create the tables of a plan and record its views, their layouts, and since when they are there.

    Raises:
        DefinitionError: the plan holds incompatible changes; nothing was done.
        StoreError: the store failed; executing once more goes on.
    """
    if plan.incompatible:
        lines = ["expected changes that the store can follow, got:", *(f"  {c}" for c in plan.incompatible)]
        raise DefinitionError("\n".join(lines))
    if not plan.plans:
        return
    registry = Registry(store, plan.workspace)
    await registry.create()
    created = {table.name for table in plan.tables}
    states = {change.view: change.state for change in plan.changes}
    # Rows that were made lie elsewhere, or are gone: what the registry knows of them is no longer so. That
    # comes first, for a table that is there is no sign of what was lost.
    await registry.forget_materialized(await _without_rows(plan, registry))
    emptied = [view for view in plan.plans if created.intersection(view.tables)]
    await _record(registry, [view for view in emptied if states[view.name] == "unchanged"], created, clock_ns)
    for table in plan.tables:
        await store.create_table(table)
    for view in plan.plans:
        if view.packed:
            await registry.record_schema(view)
        if view.stream is not None and view.schema is not None:
            await store.enable_expiry(view.stream.table)
            await registry.record_shape(view.name, block_schema(view.schema).shape)
    # Last, so that what failed half-way is still a change to make.
    changed = [view for view in plan.plans if states[view.name] != "unchanged"]
    await _record(registry, changed, created, clock_ns)


async def _record(
    registry: Registry, views: Sequence[ViewPlan], created: set[str], clock_ns: Callable[[], int]
) -> None:
    """Record how views are defined, and since when they are there as they are."""
    if not views:
        return
    applied = await registry.definitions([view.name for view in views])
    await registry.record_definitions(
        {
            view.name: definition(view) | {"created_ns": _created_ns(view, applied, created, clock_ns())}
            for view in views
        }
    )


async def _without_rows(plan: ApplyPlan, registry: Registry) -> list[str]:
    """Return the views whose table of rows isn't there yet, or that lay in another store or table before."""
    created = {table.name for table in plan.tables}
    applied = await registry.definitions([view.name for view in plan.plans])
    return [
        view.name
        for view in plan.plans
        if view.table in created
        or _has_moved(view, applied[view.name])
        or _has_another_table(view, applied[view.name])
    ]


def _has_another_table(view: ViewPlan, before: Mapping[str, Any] | None) -> bool:
    """Whether rows lay in another table, as those of a view do that moves into a bundle or out of it."""
    return before is not None and before["table"] != view.table


def _has_moved(view: ViewPlan, before: Mapping[str, Any] | None) -> bool:
    return before is not None and before.get("store", MAIN_STORE) != view.store


def _created_ns(
    view: ViewPlan, applied: Mapping[str, Mapping[str, Any] | None], created: set[str], now_ns: int
) -> int:
    """Return since when a view is there as it is: what is pushed was kept from then on."""
    before = applied[view.name]
    if (
        before is None
        or "created_ns" not in before
        or (before.get("stream") is None) != (not view.is_streamed)
    ):
        return now_ns
    # Blocks have a table of their own, which stays when rows move into a bundle: events from before are in
    # them and in the rows of before alone, so nothing begins anew then.
    pushed_to = view.table if view.stream is None else view.stream.table
    if _has_moved(view, before) or pushed_to in created:
        return now_ns
    return int(before["created_ns"])
