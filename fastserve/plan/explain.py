"""What one vector of a service costs and how it comes about: a plan put into numbers.

Looks at the plan and never at a store, so rows have the sizes that their layouts give them, and what no
layout knows (how long a key's text is, or a string's) is an assumption, which `Explanation.to_json` and
`explain_text` state.

What DynamoDB charges, after "Amazon DynamoDB Developer Guide: Read and write operations": an item's size is
that of its attribute names and values, a binary value counted as bytes and not as the base64 on the wire.
BatchGetItem rounds each item up to 4 KB on its own, an eventually consistent read costs half a unit per 4 KB
(a consistent one, as of tables that are pushed to, a whole one), and a key without an item costs as much as a
small item. A put costs a unit per started 1 KB; so does an update, of the whole item.

Other stores charge nothing for a read or a write: whoever asks says which.

Invariants
1. An explanation is a function of the plan and the arguments: the same on every machine.
2. Read calls are counted as the coalescer cuts them for a request that is alone: reads in order, none split.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fastserve.plan.explain_bundles import BundleCost, bundle_costs
from fastserve.plan.explain_streams import StreamCost, stream_costs
from fastserve.plan.explain_windows import WindowCost, duration_text, spec_text, window_costs
from fastserve.plan.on_demand import OnDemandOutput, OnDemandPlan
from fastserve.plan.reads import ReadGroup
from fastserve.plan.service import Output, Place, Read, ServicePlan
from fastserve.plan.sizes import (
    ASSUMED_KEY_BYTES,
    ASSUMED_NUMBER_BYTES,
    ASSUMED_VARIABLE_BYTES,
    item_bytes,
    read_units,
    row_bytes,
    write_units,
)
from fastserve.sdk.calculation import Calculation
from fastserve.sdk.durations import format_duration
from fastserve.tiles.aggregates import AggregateFeature

KEYS_PER_CALL = 100  # BatchGetItem's limit

PRICE_PER_MILLION_READ_UNITS_USD = 0.125
PRICE_OF = "us-east-1, on demand, list price since November 2024"

TOTALS = (
    "keys",
    "stream_keys",
    "row_bytes",
    "item_bytes",
    "read_units",
    "stream_read_units",
    "price_per_million_vectors_usd",
    "bundled_price_per_million_vectors_usd",
    "apart_price_per_million_vectors_usd",
)


@dataclass(frozen=True, slots=True)
class ReadCost:
    """One key text and the tables that it is looked up in; of stream tables, which ``block``.

    ``store`` is the name of their store, None for the main one. Of a bundle's item ``rows`` says how many it
    gives.
    """

    join_keys: tuple[str, ...]
    tables: tuple[str, ...]
    block: str | None = None
    store: str | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class RowCost:
    """One row of the vector: its sizes in bytes and what reading and writing it costs in DynamoDB's units.

    ``row_bytes`` is the fixed part, ``item_bytes`` the whole item with what is assumed for its key and its
    ``variable_values``. ``horizon`` is for how long after its as_of a row of aggregates can answer, ``ttl``
    for how long after its time one of attributes may; None is for ever. A row in a ``bundle`` is part of an
    item: its ``item_bytes`` are its own, its ``write_units`` the whole item's, and its reading is the item's.
    Units are 0 where it isn't ``priced``.
    """

    view: str
    table: str
    kind: str
    join_keys: tuple[str, ...]
    features: int
    row_bytes: int
    variable_values: int
    item_bytes: int
    read_units: float
    write_units: int
    horizon: str | None
    ttl: str | None
    bundle: str | None = None
    priced: bool = True


@dataclass(frozen=True, slots=True)
class ComputedView:
    """One on-demand view, in the order in which they are computed.

    ``answered`` are those of its ``features`` that the answer holds; ``time_limit`` None is the server's.
    """

    view: str
    mode: str
    isolation: str
    time_limit: str | None
    sources: tuple[str, ...]
    features: int
    answered: int


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One value of the answer, in the answer's order."""

    name: str
    dtype: str
    made_of: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is to be said about one vector of a service.

    ``unpriced_stores`` are those of its stores that charge nothing for reads and writes, "" for the main one.
    ``reads_consistently`` is whether any priced read is a consistent one, as of tables that are pushed to.
    """

    workspace: str
    service: str
    description: str
    join_keys: tuple[tuple[str, str], ...]
    reads: tuple[ReadCost, ...]
    calls: int
    rows: tuple[RowCost, ...]
    bundles: tuple[BundleCost, ...]
    streams: tuple[StreamCost, ...]
    windows: tuple[WindowCost, ...]
    outputs: tuple[OutputLine, ...]
    request_context: tuple[tuple[str, str], ...]
    computed: tuple[ComputedView, ...]
    price_per_million_read_units_usd: float
    unpriced_stores: tuple[str, ...] = ()
    reads_consistently: bool = False

    @property
    def is_priced(self) -> bool:
        """Whether any of its reads has a price, or would have."""
        return not self.rows or any(row.priced for row in self.rows)

    @property
    def items(self) -> tuple[BundleCost, ...]:
        """The bundles that there are, of those that there could be."""
        return tuple(cost for cost in self.bundles if cost.bundle is not None)

    @property
    def keys(self) -> int:
        """How many store keys a vector costs."""
        alone = sum(row.bundle is None for row in self.rows)
        return alone + sum(cost.keys for cost in self.items) + self.stream_keys

    @property
    def stream_keys(self) -> int:
        """How many of the keys are those of blocks."""
        return sum(stream.keys for stream in self.streams)

    @property
    def stream_read_units(self) -> float:
        """How many of the read units are those of blocks, if each has one tile."""
        return sum(stream.read_units for stream in self.streams)

    @property
    def row_bytes(self) -> int:
        """Bytes of the fixed parts of all rows of a vector."""
        return sum(row.row_bytes for row in self.rows)

    @property
    def item_bytes(self) -> int:
        """Bytes of all items of a vector, with what is assumed of them; of bundles, what is asked for."""
        alone = sum(row.item_bytes for row in self.rows if row.bundle is None)
        shared = sum(cost.keys * cost.moved_bytes for cost in self.items)
        return alone + shared + sum(s.keys * s.item_bytes for s in self.streams)

    @property
    def read_units(self) -> float:
        """Read request units of a vector whose keys no other request shares."""
        shared = sum(cost.read_units for cost in self.items)
        return sum(row.read_units for row in self.rows) + shared + self.stream_read_units

    @property
    def price_per_million_vectors_usd(self) -> float:
        """What a million such vectors cost in reads."""
        return self.read_units * self.price_per_million_read_units_usd

    @property
    def bundled_price_per_million_vectors_usd(self) -> float:
        """What they cost, or would cost, with all ``bundles``."""
        units = sum(c.read_units - c.apart_read_units for c in self.bundles if c.bundle is None)
        return (self.read_units + units) * self.price_per_million_read_units_usd

    @property
    def apart_price_per_million_vectors_usd(self) -> float:
        """What they cost, or would cost, without any bundle."""
        units = sum(c.apart_read_units - c.read_units for c in self.items)
        return (self.read_units + units) * self.price_per_million_read_units_usd

    def to_json(self) -> dict[str, Any]:
        """Return everything, the totals included, as what JSON can hold."""
        document = asdict(self)
        for fields in ("join_keys", "request_context"):
            document[fields] = [{"name": name, "dtype": dtype} for name, dtype in getattr(self, fields)]
        for total in TOTALS:
            document[total] = getattr(self, total)
        document["assumed"] = {
            "key_bytes": ASSUMED_KEY_BYTES,
            "variable_value_bytes": ASSUMED_VARIABLE_BYTES,
            "number_bytes": ASSUMED_NUMBER_BYTES,
            "consistency": "strong where pushed to, else eventual" if self.reads_consistently else "eventual",
        }
        return document


def explain(
    plan: ServicePlan,
    price_per_million_read_units_usd: float = PRICE_PER_MILLION_READ_UNITS_USD,
    unpriced: Collection[str] = (),
) -> Explanation:
    """Put a plan into numbers; stores with the names ``unpriced`` charge nothing for reads and writes."""
    views = {place.view.name: place.view for place in plan.places}
    return Explanation(
        workspace=plan.workspace,
        service=plan.name,
        description=plan.service.description,
        join_keys=tuple((field.name, str(field.dtype)) for field in plan.join_keys),
        reads=tuple(_read(plan, number) for number in range(len(plan.reads))),
        calls=_calls([read.group for read in plan.reads]),
        rows=tuple(_row(plan, place, is_priced=place.view.store not in unpriced) for place in plan.places),
        bundles=bundle_costs(plan, price_per_million_read_units_usd, unpriced),
        streams=stream_costs(plan, unpriced),
        windows=tuple(cost for view in views.values() for cost in window_costs(view)),
        outputs=tuple(
            OutputLine(output.name, str(output.dtype), _made_of(output, plan)) for output in plan.outputs
        ),
        request_context=tuple((field.name, str(field.dtype)) for field in plan.context_fields),
        computed=tuple(_computed(each) for each in plan.on_demand),
        price_per_million_read_units_usd=price_per_million_read_units_usd,
        unpriced_stores=tuple(sorted({place.view.store for place in plan.places}.intersection(unpriced))),
        reads_consistently=any(read.group.pushed and read.group.store not in unpriced for read in plan.reads),
    )


def _read(plan: ServicePlan, number: int) -> ReadCost:
    read = plan.reads[number]
    group = read.group
    rows = sum(place.read == number for place in plan.places) if group.attributes else None
    return ReadCost(_key_names(plan, read), group.tables, _block(read), group.store or None, rows)


def _key_names(plan: ServicePlan, read: Read) -> tuple[str, ...]:
    return tuple(plan.join_keys[position].name for position in read.keys)


def _block(read: Read) -> str | None:
    if not read.group.block_ns:
        return None
    return "the previous" if read.blocks_back else "the current"


def _calls(groups: Sequence[ReadGroup]) -> int:
    calls = 0
    free_of: dict[str, int] = {}  # each store is called for itself
    for group in groups:
        free = free_of.get(group.store, 0)
        if group.weight > free:
            calls, free = calls + 1, KEYS_PER_CALL
        free_of[group.store] = free - group.weight
    return calls


def _row(plan: ServicePlan, place: Place, *, is_priced: bool) -> RowCost:
    view = place.view
    bundle = next((bundle for bundle in plan.bundles if bundle.table == view.table), None)
    size = item_bytes(view) if bundle is None else row_bytes(view)
    pushed = plan.reads[place.read].group.pushed
    row = RowCost(
        view=view.name,
        table=view.table,
        kind="aggregates" if view.schema else "attributes" if view.packed else "attributes, plain",
        join_keys=_key_names(plan, plan.reads[place.read]),
        features=sum(output.place == place.number for output in plan.inputs),
        row_bytes=view.layout.fixed_bytes if view.packed else 0,
        variable_values=len(view.layout.variable_columns),
        item_bytes=size,
        read_units=read_units(size, consistent=pushed) if bundle is None else 0.0,
        write_units=write_units(size if bundle is None else bundle.item_bytes),
        horizon=duration_text(view.schema.horizon_ns) if view.schema else None,
        ttl=None if view.ttl_ns is None else duration_text(view.ttl_ns),
        bundle=view.view.bundle,
    )
    return row if is_priced else replace(row, read_units=0.0, write_units=0, priced=False)


def _computed(plan: OnDemandPlan) -> ComputedView:
    view = plan.view
    return ComputedView(
        view=plan.name,
        mode=view.mode if view.function is not None else "calculations",
        isolation=view.isolation,
        time_limit=None if view.time_limit is None else format_duration(view.time_limit),
        sources=tuple(source.name for source in plan.sources),
        features=len(plan.output_fields),
        answered=len(plan.visible),
    )


def _made_of(output: OnDemandOutput | Output, plan: ServicePlan) -> str:
    if isinstance(output, OnDemandOutput):
        return _computed_by(plan.on_demand[output.plan], output.feature)
    place, source = plan.places[output.place], output.source
    if not isinstance(source, AggregateFeature):
        return f"column {source.name} of {place.view.name}"
    return f"{spec_text(source.spec)} of {place.view.name}"


def _computed_by(plan: OnDemandPlan, feature: str) -> str:
    defined = plan.view.feature(feature)
    if isinstance(defined, Calculation):
        return f"{defined.expr} of {plan.name}"
    return f"{plan.view.mode} function {plan.name}"
