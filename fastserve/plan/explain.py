"""What one vector of a service costs and how it comes about: a plan put into numbers.

Looks at the plan and never at a store, so rows have the sizes that their layouts give them, and what no
layout knows (how long a key's text is, or a string's) is an assumption, which `Explanation.to_json` and
`explain_text` state.

What DynamoDB charges, after "Amazon DynamoDB Developer Guide: Read and write operations": an item's size is
that of its attribute names and values, a binary value counted as bytes and not as the base64 on the wire.
BatchGetItem rounds each item up to 4 KB on its own, an eventually consistent read costs half a unit per 4 KB
(a consistent one, as of tables that are pushed to, a whole one), and a key without an item costs as much as a
small item. A put costs a unit per started 1 KB.

Invariants
1. An explanation is a function of the plan and the arguments: the same on every machine.
2. Read calls are counted as the coalescer cuts them for a request that is alone: reads in order, none split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastserve.plan.explain_streams import (
    CONSISTENT_UNITS_PER_STEP,
    READ_UNIT_BYTES,
    READ_UNITS_PER_STEP,
    StreamCost,
    stream_costs,
)
from fastserve.plan.explain_windows import WindowCost, duration_text, spec_text, window_costs
from fastserve.plan.on_demand import OnDemandOutput, OnDemandPlan
from fastserve.plan.reads import ReadGroup
from fastserve.plan.service import Output, Place, Read, ServicePlan
from fastserve.plan.views import ViewPlan
from fastserve.sdk.calculation import Calculation
from fastserve.sdk.durations import format_duration
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import Storage

WRITE_UNIT_BYTES = 1024
KEYS_PER_CALL = 100  # BatchGetItem's limit

PRICE_PER_MILLION_READ_UNITS_USD = 0.125
PRICE_OF = "us-east-1, on demand, list price since November 2024"

# Typical, for want of knowledge: a UUID has 36 bytes, a number as text rarely more than 20.
ASSUMED_KEY_BYTES = 24
ASSUMED_VARIABLE_BYTES = 24
TOTALS = (
    "keys",
    "stream_keys",
    "row_bytes",
    "item_bytes",
    "read_units",
    "stream_read_units",
    "price_per_million_vectors_usd",
)
ASSUMED_NUMBER_BYTES = 10  # DynamoDB packs two digits into a byte and adds one; a float64 has up to 17 digits


@dataclass(frozen=True, slots=True)
class ReadCost:
    """One key text and the tables that it is looked up in; of stream tables, which ``block``.

    ``store`` is the name of their store, None for the main one.
    """

    join_keys: tuple[str, ...]
    tables: tuple[str, ...]
    block: str | None = None
    store: str | None = None


@dataclass(frozen=True, slots=True)
class RowCost:
    """One row of the vector: its sizes in bytes and what reading and writing it costs in DynamoDB's units.

    ``row_bytes`` is the fixed part, ``item_bytes`` the whole item with what is assumed for its key and its
    ``variable_values``. ``horizon`` is for how long after its as_of a row of aggregates can answer, ``ttl``
    for how long after its time one of attributes may; None is for ever.
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
    """All that is to be said about one vector of a service."""

    workspace: str
    service: str
    description: str
    join_keys: tuple[tuple[str, str], ...]
    reads: tuple[ReadCost, ...]
    calls: int
    rows: tuple[RowCost, ...]
    streams: tuple[StreamCost, ...]
    windows: tuple[WindowCost, ...]
    outputs: tuple[OutputLine, ...]
    request_context: tuple[tuple[str, str], ...]
    computed: tuple[ComputedView, ...]
    price_per_million_read_units_usd: float

    @property
    def keys(self) -> int:
        """How many store keys a vector costs."""
        return len(self.rows) + self.stream_keys

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
        """Bytes of all items of a vector, with what is assumed of them."""
        return sum(row.item_bytes for row in self.rows) + sum(s.keys * s.item_bytes for s in self.streams)

    @property
    def read_units(self) -> float:
        """Read request units of a vector whose keys no other request shares."""
        return sum(row.read_units for row in self.rows) + self.stream_read_units

    @property
    def price_per_million_vectors_usd(self) -> float:
        """What a million such vectors cost in reads."""
        return self.read_units * self.price_per_million_read_units_usd

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
            "consistency": "eventual" if not self.streams else "strong where pushed to, else eventual",
        }
        return document


def explain(
    plan: ServicePlan, price_per_million_read_units_usd: float = PRICE_PER_MILLION_READ_UNITS_USD
) -> Explanation:
    """Put a plan into numbers."""
    views = {place.view.name: place.view for place in plan.places}
    return Explanation(
        workspace=plan.workspace,
        service=plan.name,
        description=plan.service.description,
        join_keys=tuple((field.name, str(field.dtype)) for field in plan.join_keys),
        reads=tuple(_read(plan, read) for read in plan.reads),
        calls=_calls([read.group for read in plan.reads]),
        rows=tuple(_row(plan, place) for place in plan.places),
        streams=stream_costs(plan),
        windows=tuple(cost for view in views.values() for cost in window_costs(view)),
        outputs=tuple(
            OutputLine(output.name, str(output.dtype), _made_of(output, plan)) for output in plan.outputs
        ),
        request_context=tuple((field.name, str(field.dtype)) for field in plan.context_fields),
        computed=tuple(_computed(each) for each in plan.on_demand),
        price_per_million_read_units_usd=price_per_million_read_units_usd,
    )


def _read(plan: ServicePlan, read: Read) -> ReadCost:
    group = read.group
    return ReadCost(_key_names(plan, read), group.tables, _block(read), group.store or None)


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
        if group.size > free:
            calls, free = calls + 1, KEYS_PER_CALL
        free_of[group.store] = free - group.size
    return calls


def _row(plan: ServicePlan, place: Place) -> RowCost:
    view = place.view
    item_bytes = _item_bytes(view)
    pushed = plan.reads[place.read].group.pushed
    units_per_step = CONSISTENT_UNITS_PER_STEP if pushed else READ_UNITS_PER_STEP
    return RowCost(
        view=view.name,
        table=view.table,
        kind="aggregates" if view.schema else "attributes" if view.packed else "attributes, plain",
        join_keys=_key_names(plan, plan.reads[place.read]),
        features=sum(output.place == place.number for output in plan.inputs),
        row_bytes=view.layout.fixed_bytes if view.packed else 0,
        variable_values=len(view.layout.variable_columns),
        item_bytes=item_bytes,
        read_units=-(-item_bytes // READ_UNIT_BYTES) * units_per_step,
        write_units=-(-item_bytes // WRITE_UNIT_BYTES),
        horizon=duration_text(view.schema.horizon_ns) if view.schema else None,
        ttl=None if view.ttl_ns is None else duration_text(view.ttl_ns),
    )


def _item_bytes(view: ViewPlan) -> int:
    keys = sum(len(name.encode()) for name, _ in view.key_attributes) + ASSUMED_KEY_BYTES
    if view.packed:
        variable = len(view.layout.variable_columns) * ASSUMED_VARIABLE_BYTES
        return keys + len("v") + view.layout.fixed_bytes + -(-variable // 3) * 3
    names = [column.name for column in view.layout.columns]
    if view.timestamp_attribute is not None:
        names.append(view.timestamp_attribute)
    values = sum(_VALUE_BYTES.get(column.storage, ASSUMED_NUMBER_BYTES) for column in view.layout.columns)
    timestamp = ASSUMED_VARIABLE_BYTES if view.timestamp_attribute is not None else 0
    return keys + sum(len(name.encode()) for name in names) + values + timestamp


_VALUE_BYTES = {Storage.BOOL: 1, Storage.JSON: ASSUMED_VARIABLE_BYTES, Storage.TIME: ASSUMED_VARIABLE_BYTES}


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
