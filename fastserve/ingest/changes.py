"""What applying a changed definition means: what must be made again, and what becomes of what is there.

Knows definitions as `ingest.definition` has them, and the layouts of rows and shapes of blocks that the store
has recorded. Looks and tells; changes nothing.

Invariants
1. What is said of rows and blocks that were written before is true of their recorded layouts and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastserve.ingest.registry import Registry
from fastserve.plan.older_rows import features_lacking
from fastserve.plan.stores import MAIN_STORE
from fastserve.plan.views import ViewPlan
from fastserve.store.interface import TableSpec
from fastserve.tiles.aggregates import AggregateFeature, CompactedSchema
from fastserve.tiles.blocks import BlockSchema, BlockShape, block_schema
from fastserve.tiles.layout import RowLayout

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
class StoredRows:
    """What a view's rows and blocks were last written with: ``layout`` is None where there are no rows."""

    layout: RowLayout | None = None
    shapes: tuple[BlockShape, ...] = field(default=())


async def stored_rows(
    registry: Registry, plans: Sequence[ViewPlan], applied: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, StoredRows]:
    """Return what the rows and blocks of views were last written with."""
    names = [plan.name for plan in plans]
    done, layouts = await registry.materialized(names), await registry.layouts(names)
    shapes = await registry.shapes(names)
    found = {}
    for plan in plans:
        record, before = done[plan.name], applied[plan.name]
        schema_id = None if record is None else record.schema_id
        if plan.is_streamed and plan.schema is None and before is not None:
            schema_id = before["schema_id"]  # pushed attributes: rows are written with the applied layout
        layout = None if schema_id is None else layouts[plan.name].get(schema_id)
        found[plan.name] = StoredRows(layout, tuple(shapes[plan.name].values()))
    return found


def describe_change(
    view: ViewPlan,
    now: Mapping[str, Any],
    applied: Mapping[str, Any] | None,
    tables: Mapping[TableSpec, TableSpec | None],
    stored: StoredRows,
    taken: Mapping[tuple[str, str], TableUse] | None = None,
) -> ViewChange:
    """Compare a view's definition ``now`` with the one that was applied.

    ``tables`` are the view's, as they should be and as the store has them, ``taken`` what lies in tables.
    """
    wrong = [*_incompatible(view, now, applied, tables), *_of_another_form(view, tables, taken or {})]
    if wrong:
        return ViewChange(view.name, "incompatible", tuple(wrong))
    alone = view.view.batch_source is None
    if applied is None:
        new = ("has what is pushed from now on",) if alone else ()
        return ViewChange(view.name, "new", new, rematerialize=not alone)
    features = _feature_changes(applied["features"], now["features"])
    changed = [name for name in _SETTINGS if applied.get(name) != now[name]]
    details = [*features, *(f"{_SETTINGS[name]} changed" for name in changed)]
    again = bool(features) or not _WITHOUT_NEW_ROWS.issuperset(changed)
    if not again and applied["schema_id"] != now["schema_id"]:
        details.append("the layout of its rows changed")
        again = True
    if not _same_place(applied, now):
        details += _moved(applied, now)
        again = True
    elif again:
        details += [*_servable(view, stored.layout, changed), *_pushed_before(view, stored.shapes)]
    state: State = "changed" if details else "unchanged"
    return ViewChange(view.name, state, tuple(details), again and has_rows_to_make(view), alone)


def _same_place(applied: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether rows lie where they lay before."""
    places = [(definition["table"], definition.get("store", MAIN_STORE)) for definition in (applied, now)]
    return places[0] == places[1]


def _moved(applied: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    details = []
    if applied["table"] != now["table"]:
        details.append(_table_change(applied, now))
    was, will_be = (_store_text(definition.get("store", MAIN_STORE)) for definition in (applied, now))
    if was != will_be:
        details.append(f"the store changed from {was} to {will_be}, which has none of the old one's rows")
    return details


def _store_text(store: str) -> str:
    return repr(store) if store else "the main one"


def _table_change(applied: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    tables = f"from {applied['table']} to {now['table']}"
    if "bundle" in now:
        return f"it moved into the bundle {now['bundle']}, {tables}"
    if "bundle" in applied:
        return f"it moved out of the bundle {applied['bundle']}, {tables}"
    return f"the table changed {tables}"


@dataclass(frozen=True, slots=True)
class TableUse:
    """What lies in a table, by the definition of a view that was applied to it."""

    view: str
    bundle: str | None


def table_uses(applied: Mapping[str, Mapping[str, Any] | None]) -> dict[tuple[str, str], TableUse]:
    """Return what lies in the tables of views that were applied, by store and table."""
    return {
        (record.get("store", MAIN_STORE), record["table"]): TableUse(name, record.get("bundle"))
        for name, record in applied.items()
        if record is not None
    }


def _of_another_form(
    view: ViewPlan, tables: Mapping[TableSpec, TableSpec | None], taken: Mapping[tuple[str, str], TableUse]
) -> list[str]:
    """Say what is in the way: the table has rows and is to have a bundle's items, or the other way round."""
    use = taken.get((view.store, view.table))
    is_there = any(found is not None and found.name == view.table for found in tables.values())
    if use is None or not is_there or (use.bundle is None) == (view.attribute is None):
        return []
    there = f"rows of view {use.view}" if use.bundle is None else f"items of the bundle {use.bundle}"
    wanted = "the view another name or another table"
    if view.attribute is not None:
        wanted = "the bundle another name"
    return [f"table {view.table}: it has {there}, which lie there in another form; give {wanted}"]


def has_rows_to_make(view: ViewPlan) -> bool:
    """Whether a job makes rows of the view: pushed attributes without files have none to be made."""
    return view.view.batch_source is not None or view.stream is not None


def _servable(view: ViewPlan, layout: RowLayout | None, changed: Sequence[str]) -> list[str]:
    """Say what becomes of the rows that there are until new ones are written."""
    if layout is None:
        return []
    if view.schema is not None and any(name in changed for name in _CUTS):
        return ["rows written before can't be cut anew: they are answered by 503 until then"]
    lacking = features_lacking(view, layout)
    if not lacking:
        return ["rows written before stay servable"]
    return [f"rows written before stay servable, with these features null: {_listed(lacking)}"]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_AT_MOST} more" if len(names) > LISTED_AT_MOST else ""
    return ", ".join(names[:LISTED_AT_MOST]) + more


def _pushed_before(view: ViewPlan, shapes: Sequence[BlockShape]) -> list[str]:
    """Say what of the features the blocks that there are don't hold."""
    if view.schema is None or view.stream is None or not shapes:
        return []
    blocks = block_schema(view.schema)
    known = {part for shape in shapes for part in (*(name for name, _ in shape.components), *shape.wide)}
    new = [
        feature.spec.name
        for feature in view.schema.features
        if not known.issuperset(_parts(view.schema, blocks, feature))
    ]
    if not new:
        return []
    listed = _listed(new)
    if view.view.batch_source is None:
        return [f"what was pushed before has no part in these features: {listed}"]
    return [
        f"what is pushed until every server has the new definition has no part in {listed}: materialize after"
    ]


def _parts(schema: CompactedSchema, blocks: BlockSchema, feature: AggregateFeature) -> set[str]:
    """Return the names of the parts of a tile that a feature is made of."""
    names, first = {}, 0
    for name, width in blocks.shape.components:
        names[first] = name
        first += width
    indexes = [index for index in (feature.value, feature.count) if index is not None]
    parts = {names[blocks.component_words[index]] for index in indexes}
    if feature.wide is not None:
        parts.add(blocks.shape.wide[blocks.wide_places[feature.wide]])
    for element in feature.elements:
        parts |= _parts(schema, blocks, element)
    return parts


def _incompatible(
    view: ViewPlan,
    now: Mapping[str, Any],
    applied: Mapping[str, Any] | None,
    tables: Mapping[TableSpec, TableSpec | None],
) -> list[str]:
    wrong = [
        f"table {spec.name}: expected the key {_key(spec)}, the store's has {_key(found)}"
        for spec, found in tables.items()
        if found is not None and found != spec
    ]
    if applied is None:
        return wrong
    if _same_place(applied, now):
        if applied["keys"] != now["keys"]:
            wrong.append(_other_keys(applied, now, f"the rows in {view.table}"))
        if applied["row_format"] != now["row_format"]:
            wrong.append(
                f"the row format changed from {applied['row_format']} to {now['row_format']}; "
                "give it another table"
            )
    if view.stream is not None and _blocks_stay(view, applied, now, tables):
        if applied["keys"] != now["keys"] and not _same_place(applied, now):
            wrong.append(_other_keys(applied, now, f"the blocks in {view.stream.table}"))
        wrong += [
            f"{_SETTINGS[name]} changed, and the blocks in {view.stream.table} are cut by the old; give the "
            "view another name or another table"
            for name in _CUTS
            if applied[name] != now[name]
        ]
    return wrong


def _blocks_stay(
    view: ViewPlan,
    applied: Mapping[str, Any],
    now: Mapping[str, Any],
    tables: Mapping[TableSpec, TableSpec | None],
) -> bool:
    """Whether what was pushed stays where it is looked for, also where rows move into a bundle or out."""
    if view.stream is None or applied.get("stream") is None:
        return False
    if applied.get("store", MAIN_STORE) != view.store:
        return False
    moves_rows = applied.get("bundle") != now.get("bundle")
    is_there = any(found is not None and found.name == view.stream.table for found in tables.values())
    return is_there and (moves_rows or _same_place(applied, now))


def _other_keys(applied: Mapping[str, Any], now: Mapping[str, Any], what: str) -> str:
    was, keys = (
        ", ".join(f"{name}: {kind}" for name, kind in part) for part in (applied["keys"], now["keys"])
    )
    return (
        f"the join keys changed from {was} to {keys}, and {what} lie under the old; "
        "give the view another name or another table"
    )


def _key(spec: TableSpec) -> str:
    parts = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
    return ", ".join(f"{part.name} ({part.type})" for part in parts)


def _feature_changes(was: dict[str, str], now: dict[str, str]) -> list[str]:
    added = [f"feature {name} added" for name in now if name not in was]
    removed = [f"feature {name} removed" for name in was if name not in now]
    both = [name for name in now if name in was and was[name] != now[name]]
    return [*added, *removed, *(f"feature {name} changed from {was[name]} to {now[name]}" for name in both)]
