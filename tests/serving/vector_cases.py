"""What the evaluator's tests are fed: plans of any shape, rows of any kind and in any state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from fastserve.plan.service import Place, ServicePlan
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.tiles.aggregates import Op
from fastserve.tiles.layout import NO_ROW, NULL_FLOAT64_BITS, NULL_INT64, RowLayout, make_layout
from fastserve.tiles.rows import encode_row
from fastserve.tiles.windows import DAY_NS, HOUR_NS
from tests.support.plans import (
    AS_OF_NS,
    ATTRIBUTES,
    NOW_NS,
    SHOP,
    TTL,
    TTL_NS,
    USER,
    aggregate_row,
    aggregate_view,
    all_aggregates,
    attribute_row,
    attribute_view,
    workspace_plan,
)

NULL_FLOAT64 = np.array([NULL_FLOAT64_BITS], "<i8").view("<f8")[0]
OLD = make_layout(
    [
        ("d_text", ATTRIBUTES["d_text"]),
        ("a_int", ATTRIBUTES["b_float"]),
        ("j_float", ATTRIBUTES["j_float"]),
    ]
)
UNKNOWN_LAYOUT = make_layout([("nobody", ATTRIBUTES["a_int"])])
EFFECTIVE_NS = (AS_OF_NS, NOW_NS - TTL_NS, NOW_NS - TTL_NS - 1, NOW_NS + DAY_NS, 0)


def floats() -> st.SearchStrategy[float]:
    """Floats whose sums are exact in any order, both zeros, NaN and the infinities."""
    exact = st.integers(-(2**30), 2**30).map(lambda number: number / 8)
    return st.one_of(exact, st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf")]))


def extremes() -> st.SearchStrategy[float]:
    """What writers store as a minimum or a maximum: no -0.0, of which and 0.0 NumPy takes any."""
    return st.one_of(floats().map(lambda value: value + 0.0), st.just(NULL_FLOAT64))


def int64s() -> st.SearchStrategy[int]:
    return st.one_of(
        st.integers(-9, 9),
        st.sampled_from([-(2**63), -(2**63) + 1, 2**63 - 1, 2**62]),
        st.integers(-(2**63), 2**63 - 1),
    )


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "a_int": int64s(),
    "b_float": floats(),
    "c_single": st.one_of(st.floats(width=32), st.sampled_from([0.1, 1e38, float("nan"), float("inf")])),
    "d_text": st.text(max_size=6).map(orjson.dumps),
    "e_bool": st.booleans(),
    "f_time": st.one_of(
        st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from([NULL_INT64 + 1, 0, 1, 1_000, NOW_NS])
    ),
    "g_array": st.sampled_from([b"[]", b'["1",null]']),
    "h_struct": st.sampled_from([b'[1.5,"a,b"]', b"[null,null]"]),
    "i_map": st.sampled_from([b"{}", b'{"k],[":"2"}']),
    "j_float": st.floats(),
}


@st.composite
def plans(draw: st.DrawFn) -> ServicePlan:
    parts: list[Any] = []
    for number in range(draw(st.integers(1, 3))):
        entities = draw(st.sampled_from([(USER,), (SHOP,), (USER, SHOP)]))
        if draw(st.booleans()):
            names = draw(st.lists(st.sampled_from(sorted(ATTRIBUTES)), min_size=1, max_size=6, unique=True))
            ttl = draw(st.sampled_from([None, TTL]))
            view = attribute_view(f"v{number}", names, entities=entities, ttl=ttl)
        else:
            features = draw(st.lists(st.sampled_from(all_aggregates()), min_size=1, max_size=8, unique=True))
            view = aggregate_view(f"v{number}", features, entities=entities)
        parts.append(view)
        if draw(st.booleans()):
            count = draw(st.integers(1, len(view.feature_names)))
            reference = view[list(view.feature_names[:count])].with_name(f"again{number}")
            if USER in entities and draw(st.booleans()):
                reference = reference.with_join_key_map({"user_id": "payee_id"})
            parts.append(reference)
    return workspace_plan({"s": parts}).services["s"]


@st.composite
def attribute_rows(draw: st.DrawFn, place: Place) -> bytes:
    values = {
        column.name: draw(st.one_of(st.none(), VALUES[column.name])) for column in place.view.layout.columns
    }
    return attribute_row(
        place.view,
        values,
        draw(st.sampled_from(EFFECTIVE_NS)),
    )


SLOTS: dict[Op, st.SearchStrategy[Any]] = {
    Op.ADD_F: floats(),
    Op.MIN_F: extremes(),
    Op.MAX_F: extremes(),
    Op.COUNT: st.sampled_from([0, 0, 1, 5]),
    Op.ADD_I: st.one_of(st.integers(-99, 99), st.sampled_from([2**62, -(2**62), NULL_INT64, 2**63 - 1])),
    Op.MIN_I: st.one_of(int64s(), st.just(2**63 - 1)),
    Op.MAX_I: st.one_of(int64s(), st.just(NULL_INT64)),
}
NEUTRAL: dict[Op, Any] = {
    Op.ADD_F: -0.0,
    Op.MIN_F: NULL_FLOAT64,
    Op.MAX_F: NULL_FLOAT64,
    Op.COUNT: 0,
    Op.ADD_I: 0,
    Op.MIN_I: 2**63 - 1,
    Op.MAX_I: NULL_INT64,
}
AS_OFS = (
    AS_OF_NS,
    AS_OF_NS,
    AS_OF_NS - 12 * HOUR_NS,
    NOW_NS - 2 * DAY_NS,
    NOW_NS - 2 * DAY_NS - HOUR_NS,
    NOW_NS,
    NOW_NS + HOUR_NS,
    2**63 - 1,
    0,
)


@st.composite
def aggregate_rows(draw: st.DrawFn, place: Place) -> bytes:
    schema = place.view.schema
    assert schema is not None
    slots = {}
    for number, component in enumerate(schema.components):
        numbers = [NEUTRAL[component.op]] * component.window.slots
        for at in draw(st.lists(st.integers(0, component.window.slots - 1), max_size=3)):
            numbers[at] = draw(SLOTS[component.op])
        slots[number] = numbers
    return aggregate_row(place.view, slots, draw(st.sampled_from(AS_OFS)))


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "cut": lambda row: row[: len(row) // 2],
    "cut by a little": lambda row: row[:-4],
    "cut to nothing": lambda row: row[:0],
    "longer": lambda row: row + row[:24],
    "another format": lambda row: b"\x07" + row[1:] if isinstance(row, bytes) else "B" + row[1:],
    "not base64": lambda row: b"\xff" * len(row) if isinstance(row, bytes) else "!" * len(row),
    "padded": lambda row: row + (b"\0" if isinstance(row, bytes) else "="),
}


@st.composite
def lines(draw: st.DrawFn, plan: ServicePlan, transport: RowTransport) -> list[Any]:
    row_of: list[Any] = []
    for place in plan.places:
        kind = draw(st.sampled_from(["good"] * 8 + ["absent", "absent", "told", "old", "unknown", *DAMAGE]))
        if kind == "absent":
            row_of.append(None)
            continue
        if kind == "old" and place.view.schema is None:
            values = {"d_text": b'"then"', "a_int": 1.5, "j_float": draw(floats())}
            raw = encode_row(OLD, values, AS_OF_NS)
        elif kind == "told":
            raw = NO_ROW
        elif kind == "unknown":
            raw = encode_row(UNKNOWN_LAYOUT, {"nobody": 1}, AS_OF_NS)
        else:
            raw = draw(aggregate_rows(place) if place.view.schema else attribute_rows(place))
        row = transport.wrap(raw)
        row_of.append(DAMAGE[kind](row) if kind in DAMAGE else row)
    return row_of


@dataclass
class Case:
    plan: ServicePlan
    transport: RowTransport
    lines: list[list[Any]]
    zeros: list[bool]
    old: dict[str, dict[int, RowLayout]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    plan = draw(plans())
    transport = draw(st.sampled_from([BASE64_ROWS, RAW_ROWS]))
    some = draw(st.lists(lines(plan, transport), min_size=1, max_size=3))
    zeros = [draw(st.booleans()) for _ in some]
    old = {place.view.name: {OLD.schema_id: OLD} for place in plan.places if place.view.schema is None}
    return Case(plan, transport, some, zeros, old)
