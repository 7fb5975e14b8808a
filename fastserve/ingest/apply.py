"""Bringing a store up to a feature repo: what is missing, what changed, what can't be changed.

`plan_apply` only looks; `execute` creates the tables and records the definitions. Rows are written by
`ingest.materialize`; nothing is ever dropped or deleted here.

A streamed view of aggregates has a second table, for its blocks. Blocks are numbered by their length and
tiles cut by the aggregation interval: changing either would leave what was pushed where no request looks for
it, so that is refused.

Invariants
1. A plan with incompatible changes is not executed, not even in part.
2. Executing a plan twice is executing it once.
3. What is said of rows that were written before is true of the row layouts that the store has recorded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from fastserve.errors import DefinitionError
from fastserve.ingest.registry import Registry
from fastserve.ingest.transform import source_text
from fastserve.plan.streams import StreamPlan
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.features import Aggregate
from fastserve.sdk.repo import Repo
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from fastserve.tiles.aggregates import AggregateFeature, CompactedSchema
from fastserve.tiles.blocks import block_schema
from fastserve.tiles.layout import Column, RowLayout

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
    "stream": "the stream",
}
_WITHOUT_NEW_ROWS = frozenset({"ttl_ns", "stream"})
_CUTS = ("interval_ns", "horizon_ns")
"""What decides where windows are cut, and how the stream is cut into blocks."""
_NO_PART_OF_ROWS = ("ttl_ns", "stream", "created_ns")
LISTED_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class ViewChange:
    """One view of the repo as against the store; ``details`` says in words what changed or what can't.

    ``rematerialize`` is whether its rows must be made (again), which a view without files does by compacting.
    """

    view: str
    state: State
    details: tuple[str, ...] = ()
    rematerialize: bool = False
    compacted: bool = False

    def __str__(self) -> str:
        verb = "compacted" if self.compacted else "materialized"
        again = (f"must be {verb}" + " again" * (self.state != "new"),) if self.rematerialize else ()
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


def table_specs(view: ViewPlan) -> list[TableSpec]:
    """Return the tables of a view: that of its rows, and that of its blocks if it has any."""
    return [table_spec(view), *([] if view.stream is None else [stream_table_spec(view.stream)])]


def stream_table_spec(stream: StreamPlan) -> TableSpec:
    """Return the table that a streamed view's blocks lie in."""
    return TableSpec(stream.table)


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
    specs = {spec.name: spec for plan in plans for spec in table_specs(plan)}
    existing = await store.describe_tables(list(specs))
    missing = [spec for name, spec in specs.items() if existing[name] is None]
    tables = [*missing, *([] if known else [TableSpec(registry.table)])]
    layouts = await _layouts_of_rows(registry, plans) if known else {}
    changes = [_change(plan, applied.get(plan.name), existing, layouts.get(plan.name)) for plan in plans]
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
    registry = Registry(store, plan.workspace)
    await registry.create()
    for table in plan.tables:
        await store.create_table(table)
    for view in plan.plans:
        if view.packed:
            await registry.record_schema(view)
        if view.stream is not None and view.schema is not None:
            await store.enable_expiry(view.stream.table)
            await registry.record_shape(view.name, block_schema(view.schema).shape)
    # Last, so that what failed half-way is still a change to make.
    states = {change.view: change.state for change in plan.changes}
    changed = [view for view in plan.plans if states[view.name] != "unchanged"]
    if changed:
        applied = await registry.definitions([view.name for view in changed])
        created = {table.name for table in plan.tables}
        await registry.record_definitions(
            {
                view.name: definition(view) | {"created_ns": _created_ns(view, applied, created, clock_ns())}
                for view in changed
            }
        )


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
    if created & {view.table, *([] if view.stream is None else [view.stream.table])}:
        return now_ns
    return int(before["created_ns"])


def rows_digest(view: ViewPlan) -> str:
    """Return what two definitions have in common under which a view's rows are the same."""
    facts = {name: fact for name, fact in definition(view).items() if name not in _NO_PART_OF_ROWS}
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


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
        "stream": {"source": written.source.name, "alone": source is None} if view.is_streamed else None,
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


def _change(
    view: ViewPlan,
    applied: dict[str, Any] | None,
    existing: Mapping[str, TableSpec | None],
    layout: RowLayout | None,
) -> ViewChange:
    wrong = _incompatible(view, applied, existing)
    if wrong:
        return ViewChange(view.name, "incompatible", tuple(wrong))
    alone = view.view.batch_source is None
    if applied is None:
        new = ("has what is pushed from now on",) if alone else ()
        return ViewChange(view.name, "new", new, rematerialize=not alone)
    now = definition(view)
    features = _feature_changes(applied["features"], now["features"])
    changed = [name for name in _SETTINGS if applied.get(name) != now[name]]
    details = [*features, *(f"{_SETTINGS[name]} changed" for name in changed)]
    again = bool(features) or not _WITHOUT_NEW_ROWS.issuperset(changed)
    if applied["table"] != now["table"]:
        details.append(f"the table changed from {applied['table']} to {now['table']}")
        again = True
    elif again:
        details += _servable(view, layout, changed)
    if alone and again:
        details.append("what was pushed before has no part in what is new")
    state: State = "changed" if details else "unchanged"
    return ViewChange(view.name, state, tuple(details), again and _is_made(view), alone)


def _is_made(view: ViewPlan) -> bool:
    """Whether a job makes the view's rows: pushed attributes without files have none to be made."""
    return view.view.batch_source is not None or view.stream is not None


async def _layouts_of_rows(registry: Registry, plans: Sequence[ViewPlan]) -> dict[str, RowLayout | None]:
    """Return the layout that each view's rows were last written with, None where no rows were written."""
    names = [plan.name for plan in plans if plan.packed]
    done, layouts = await registry.materialized(names), await registry.layouts(names)
    return {
        name: None if record is None else layouts[name].get(record.schema_id) for name, record in done.items()
    }


def _servable(view: ViewPlan, layout: RowLayout | None, changed: Sequence[str]) -> list[str]:
    """Say what becomes of the rows that there are until new ones are written."""
    if layout is None:
        return []
    if view.schema is not None and any(name in changed for name in _CUTS):
        return ["rows written before can't be cut anew: they are answered by 503 until then"]
    lacking = features_lacking(view, layout)
    if not lacking:
        return ["rows written before stay servable"]
    more = f" and {len(lacking) - LISTED_AT_MOST} more" if len(lacking) > LISTED_AT_MOST else ""
    listed = ", ".join(lacking[:LISTED_AT_MOST]) + more
    return [f"rows written before stay servable, with these features null: {listed}"]


def features_lacking(view: ViewPlan, layout: RowLayout) -> list[str]:
    """Return the features that rows of another layout don't hold, in the view's order."""

    def has(columns: Sequence[Column]) -> bool:
        found = [layout.by_name.get(column.name) for column in columns]
        return all(
            old is not None and old.dtype == column.dtype for old, column in zip(found, columns, strict=True)
        )

    if view.schema is None:
        return [column.name for column in view.layout.columns if not has([column])]
    schema = view.schema
    return [feature.spec.name for feature in schema.features if not has(_columns(schema, feature))]


def _columns(schema: CompactedSchema, feature: AggregateFeature) -> list[Column]:
    """Return the columns of a row that a feature is finalized from."""
    words: set[int] = set()
    for index in (feature.value, feature.count):
        if index is not None:
            component = schema.components[index]
            words.update(range(component.word, component.word + component.words))
    found = [c for c in schema.layout.columns if not c.storage.is_variable and c.word in words]
    if feature.wide is not None:
        found += schema.wide[feature.wide].columns
    for element in feature.elements:
        found += _columns(schema, element)
    return found


def _incompatible(
    view: ViewPlan, applied: dict[str, Any] | None, existing: Mapping[str, TableSpec | None]
) -> list[str]:
    wrong = []
    for spec in table_specs(view):
        found = existing[spec.name]
        if found is not None and found != spec:
            wrong.append(f"table {spec.name}: expected the key {_key(spec)}, the store's has {_key(found)}")
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
    return wrong + _incompatible_cuts(view, applied, existing)


def _incompatible_cuts(
    view: ViewPlan, applied: dict[str, Any], existing: Mapping[str, TableSpec | None]
) -> list[str]:
    """Return which cuts of a stream changed, whose blocks lie there already."""
    if view.stream is None or applied.get("stream") is None or existing[view.stream.table] is None:
        return []
    now = definition(view)
    return [
        f"{_SETTINGS[name]} changed, and the blocks in {view.stream.table} are cut by the old; give the view "
        "another name or another table"
        for name in _CUTS
        if applied[name] != now[name]
    ]


def _key(spec: TableSpec) -> str:
    parts = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
    return ", ".join(f"{part.name} ({part.type})" for part in parts)


def _feature_changes(was: dict[str, str], now: dict[str, str]) -> list[str]:
    added = [f"feature {name} added" for name in now if name not in was]
    removed = [f"feature {name} removed" for name in was if name not in now]
    both = [name for name in now if name in was and was[name] != now[name]]
    return [*added, *removed, *(f"feature {name} changed from {was[name]} to {now[name]}" for name in both)]
