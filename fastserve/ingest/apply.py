"""Bringing a store up to a feature repo: what is missing, what changed, what can't be changed.

`plan_apply` only looks; `execute` creates the tables and records the definitions. Rows are written by
`ingest.materialize`; nothing is ever dropped or deleted here.

Invariants
1. A plan with incompatible changes is not executed, not even in part.
2. Executing a plan twice is executing it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastserve.errors import DefinitionError
from fastserve.ingest.registry import Registry
from fastserve.ingest.transform import source_text
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.features import Aggregate
from fastserve.sdk.repo import Repo
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec

State = Literal["new", "changed", "unchanged", "incompatible"]
_SETTINGS = {
    "transformation": "the transformation",
    "source": "the source",
    "timestamp_field": "the timestamp field",
    "start_time": "the start time",
    "interval_ns": "the aggregation interval",
    "horizon_ns": "the horizon",
    "leading_edge": "the leading edge",
    "ttl_ns": "the ttl",
}
_WITHOUT_NEW_ROWS = frozenset({"ttl_ns"})


@dataclass(frozen=True, slots=True)
class ViewChange:
    """One view of the repo as against the store; ``details`` says in words what changed or what can't."""

    view: str
    state: State
    details: tuple[str, ...] = ()
    rematerialize: bool = False

    def __str__(self) -> str:
        again = ("must be materialized" + " again" * (self.state != "new"),) if self.rematerialize else ()
        details = "; ".join([*self.details, *again])
        return f"view {self.view}: {self.state}{': ' if details else ''}{details}"


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
        created = [f"table {table.name}: to be created" for table in self.tables]
        orphans = [f"view {name}: no longer defined; its table is left alone" for name in self.orphans]
        return [*created, *map(str, self.changes), *orphans]


def table_spec(view: ViewPlan) -> TableSpec:
    """Return the table that a view's rows lie in."""
    names = [KeyAttribute(name, "N" if kind == "N" else "S") for name, kind in view.key_attributes]
    return TableSpec(view.table, *names)


async def plan_apply(repo: Repo, store: OnlineStore, *, workspace: str | None = None) -> ApplyPlan:
    """Compare a repo with what the store has.

    Raises:
        DefinitionError: a view can't be compiled.
        StoreError: the store can't be asked.
    """
    workspace = workspace or repo.workspace
    plans = [plan_view(view, workspace, store.table_prefix) for view in repo.views.values()]
    registry = Registry(store, workspace)
    known = await registry.exists()
    applied = await registry.definitions([plan.name for plan in plans]) if known else {}
    orphans = [name for name in (await registry.views() if known else []) if name not in repo.views]
    existing = await store.describe_tables([plan.table for plan in plans])
    missing = {plan.table: table_spec(plan) for plan in plans if existing[plan.table] is None}
    tables = [*missing.values(), *([] if known else [TableSpec(registry.table)])]
    changes = [_change(plan, applied.get(plan.name), existing[plan.table]) for plan in plans]
    return ApplyPlan(workspace, tuple(plans), tuple(tables), tuple(changes), tuple(orphans))


async def execute(plan: ApplyPlan, store: OnlineStore) -> None:
    """Create the tables of a plan and record its views and their layouts.

    Raises:
        DefinitionError: the plan holds incompatible changes; nothing was done.
        StoreError: the store failed; executing once more goes on.
    """
    if plan.incompatible:
        lines = ["expected changes that the store can follow, got:", *(f"  {c}" for c in plan.incompatible)]
        raise DefinitionError("\n".join(lines))
    registry = Registry(store, plan.workspace)
    await registry.create()
    for table in plan.tables:
        await store.create_table(table)
    for view in plan.plans:
        if view.packed:
            await registry.record_schema(view)
    # Last, so that what failed half-way is still a change to make.
    states = {change.view: change.state for change in plan.changes}
    changed = {view.name: definition(view) for view in plan.plans if states[view.name] != "unchanged"}
    if changed:
        await registry.record_definitions(changed)


def definition(view: ViewPlan) -> dict[str, Any]:
    """Return what is recorded of a view: all that decides its keys and its rows, ready for JSON."""
    written = view.view
    source = written.batch_source
    return {
        "keys": [[field.name, str(field.dtype)] for field in view.key_fields],
        "table": view.table,
        "row_format": "packed" if view.packed else "attributes",
        "schema_id": view.layout.schema_id,
        "features": _features(view),
        "source": None
        if source is None
        else _digest([source.name, source.format, *map(_portable, source.paths)]),
        "transformation": _digest([source_text(written.transformation)]),
        "timestamp_field": written.timestamp_field,
        "start_time": None if written.start_time is None else written.start_time.isoformat(),
        "interval_ns": view.interval_ns,
        "horizon_ns": None if view.schema is None else view.schema.horizon_ns,
        "leading_edge": written.leading_edge,
        "ttl_ns": view.ttl_ns,
    }


def _features(view: ViewPlan) -> dict[str, str]:
    described: dict[str, str] = {}
    for name, feature in zip(view.view.feature_names, view.view.features, strict=True):
        what = str(view.view.output_type(name))
        if isinstance(feature, Aggregate):
            window = feature.time_window.label
            what = f"{feature.function.label} of {feature.input_column} over {window}: {what}"
            what += "" if feature.tail_hop is None else f", tail hop {feature.tail_hop}"
        described[name] = what
    return described


def _portable(path: str) -> str:
    """Return what of a path is the same on every machine: a repo lies in different folders."""
    return path if "://" in path else path.rsplit("/", 1)[-1]


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _change(view: ViewPlan, applied: dict[str, Any] | None, existing: TableSpec | None) -> ViewChange:
    wrong = _incompatible(view, applied, existing)
    if wrong:
        return ViewChange(view.name, "incompatible", tuple(wrong))
    if applied is None:
        return ViewChange(view.name, "new", rematerialize=True)
    now = definition(view)
    details = [*_feature_changes(applied["features"], now["features"])]
    again = bool(details)
    for name, words in _SETTINGS.items():
        if applied.get(name) != now[name]:
            details.append(f"{words} changed")
            again = again or name not in _WITHOUT_NEW_ROWS
    if applied["table"] != now["table"]:
        details.append(f"the table changed from {applied['table']} to {now['table']}")
        again = True
    return ViewChange(view.name, "changed" if details else "unchanged", tuple(details), again)


def _incompatible(view: ViewPlan, applied: dict[str, Any] | None, existing: TableSpec | None) -> list[str]:
    wrong = []
    spec = table_spec(view)
    if existing is not None and existing != spec:
        wrong.append(f"table {view.table}: expected the key {_key(spec)}, the store's has {_key(existing)}")
    if applied is None or applied["table"] != view.table:
        return wrong
    keys = [[field.name, str(field.dtype)] for field in view.key_fields]
    if applied["keys"] != keys:
        was, now = (", ".join(f"{name}: {kind}" for name, kind in part) for part in (applied["keys"], keys))
        wrong.append(
            f"the join keys changed from {was} to {now}, and the rows in {view.table} lie under the old; "
            "give the view another name or another table"
        )
    row_format = "packed" if view.packed else "attributes"
    if applied["row_format"] != row_format:
        wrong.append(
            f"the row format changed from {applied['row_format']} to {row_format}; give it another table"
        )
    return wrong


def _key(spec: TableSpec) -> str:
    parts = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
    return ", ".join(f"{part.name} ({part.type})" for part in parts)


def _feature_changes(was: dict[str, str], now: dict[str, str]) -> list[str]:
    added = [f"feature {name} added" for name in now if name not in was]
    removed = [f"feature {name} removed" for name in was if name not in now]
    both = [name for name in now if name in was and was[name] != now[name]]
    return [*added, *removed, *(f"feature {name} changed from {was[name]} to {now[name]}" for name in both)]
