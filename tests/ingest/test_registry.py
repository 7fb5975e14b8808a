"""The records beside the rows, in a local store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fastserve.errors import StoreError
from fastserve.ingest.registry import (
    Materialized,
    Registry,
    described_layout,
    described_type,
    registry_table,
    schema_key,
)
from fastserve.sdk.types import (
    SCALARS,
    Array,
    DataType,
    Field,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.store.interface import OnlineStore
from fastserve.tiles.blocks import BlockShape
from fastserve.tiles.layout import make_layout
from tests.ingest.support import T, Workbench

NESTED = Array(Struct([Field("a", Map(String, Array(Timestamp))), Field("b", Int64)]))
DEFINITION = """
    source = FileSource("numbers", "numbers.csv")
    view = FeatureView("numbers", user, source, [Attribute("n", {dtype})])
"""


def with_registry(bench: Workbench, work: Callable[[Registry], Awaitable[T]]) -> T:
    async def run(store: OnlineStore) -> T:
        registry = Registry(store, "default")
        await registry.create()
        return await work(registry)

    return bench.with_store(run)


def test_the_table_is_named_after_prefix_and_workspace() -> None:
    assert registry_table("prod-", "flights") == "prod-flights.fastserve"


def test_a_workspace_exists_once_it_was_created(bench: Workbench) -> None:
    assert not bench.with_store(lambda store: Registry(store, "default").exists())
    assert with_registry(bench, lambda registry: registry.exists())
    assert with_registry(bench, lambda registry: registry.views()) == []


@pytest.mark.parametrize("dtype", [*SCALARS, NESTED], ids=str)
def test_a_type_is_made_again_from_its_description(dtype: DataType) -> None:
    assert described_type(dtype.to_api()) == dtype


def test_a_layout_is_made_again_from_its_description() -> None:
    layout = make_layout([("a", Int64), ("b", NESTED), ("c", Float64)])
    columns = [(name, described_type(dtype).to_api()) for name, dtype in layout.describe()]  # type: ignore[arg-type]
    assert described_layout(columns, layout.schema_id) == layout
    with pytest.raises(StoreError, match=r"schema 00000001: expected its own columns, got those of "):
        described_layout(columns, 1)
    with pytest.raises(StoreError, match=r"schema 00000001: expected columns with their types, got "):
        described_layout([("a", {"type": "complex"})], 1)


def test_every_layout_that_was_ever_recorded_is_kept(bench: Workbench) -> None:
    plans = [
        bench.plan(bench.define(DEFINITION.format(dtype=d)), "numbers") for d in ("Int64", "Float64", "Int64")
    ]

    async def work(registry: Registry) -> object:
        for plan in plans:
            await registry.record_schema(plan)
        return await registry.layouts(["numbers", "others"])

    layouts = {plan.layout.schema_id: plan.layout for plan in plans}
    assert len(layouts) == 2
    assert with_registry(bench, work) == {"numbers": layouts, "others": {}}


def test_what_was_materialized_is_kept_per_view(bench: Workbench) -> None:
    record = Materialized("numbers", 2**62, 2**62 - 1, 7, 10, 1, 5, 100)

    async def work(registry: Registry) -> object:
        await registry.record_materialized(record)
        return await registry.materialized(["others", "numbers"])

    assert with_registry(bench, work) == {"others": None, "numbers": record}


def test_rows_of_another_definition_say_nothing_of_keys_without_a_row_unless_the_stream_is_all_there_is(
    bench: Workbench,
) -> None:
    def definition(*, alone: bool) -> dict[str, object]:
        return {"stream": {"alone": alone}, "created_ns": 3}

    async def work(registry: Registry) -> object:
        names = ["alone", "beside", "never"]
        await registry.record_definitions({name: definition(alone=name == "alone") for name in names})
        for name in names[:2]:
            await registry.record_materialized(Materialized(name, 9, 8, 7, 10, 1, 5, 100, "then"))
        return [
            await registry.watermarks(names),
            await registry.watermarks(names, dict.fromkeys(names, "then")),
            await registry.watermarks(names, dict.fromkeys(names, "now")),
        ]

    same = {"alone": 8, "beside": 8, "never": None}
    assert with_registry(bench, work) == [same, same, same | {"beside": None}]


def test_records_lie_in_rows_of_a_multiple_of_three_bytes(bench: Workbench) -> None:
    async def work(registry: Registry) -> object:
        await registry.write({f"key/{n}": "x" * n for n in range(4)})
        rows = await registry._store.get_rows(registry.table, [f"key/{n}" for n in range(4)])
        assert all(row is not None and len(row) % 3 == 0 for row in rows)
        await registry.delete(["key/0", "key/9"])
        return await registry.read(["key/0", "key/3", "key/1"])

    assert with_registry(bench, work) == [None, "xxx", "x"]


def test_a_spoilt_record_is_an_error(bench: Workbench) -> None:
    async def work(registry: Registry) -> object:
        await registry._store.put_rows(registry.table, [("views", b"{{{"), ("schemas/v", b"[1]")])
        return await registry.views()

    with pytest.raises(
        StoreError, match=r"table default\.fastserve: views: expected a record in JSON, got b'\{\{\{'"
    ):
        with_registry(bench, work)
    with pytest.raises(StoreError, match=f"{schema_key('v', 1)}: expected a record, got none"):
        with_registry(bench, lambda registry: registry.layouts(["v"]))


@pytest.mark.parametrize("record", [{"view": "v", "of_a_later_version": 1}, [1], "v"])
def test_what_was_materialized_and_can_not_be_understood_is_an_error(
    bench: Workbench, record: object
) -> None:
    async def work(registry: Registry) -> object:
        await registry.write({"materialized/v": record})
        return await registry.materialized(["v"])

    with pytest.raises(StoreError, match=r"materialized/v: expected what was materialized, got "):
        with_registry(bench, work)


def test_a_long_record_is_compressed_and_comes_back(bench: Workbench) -> None:
    columns = [(f"amount:sum:604800000000000:3600000000000:{n}", {"type": "float64"}) for n in range(10_000)]

    async def work(registry: Registry) -> object:
        await registry.write({"long": {"columns": columns}, "short": {"columns": columns[:10]}})
        long, short = await registry._store.get_rows(registry.table, ["long", "short"])
        assert long is not None
        assert short is not None
        assert (len(long) < 200_000, len(long) % 3, short[:1]) == (True, 0, b"{")
        await registry._store.put_rows(registry.table, [("broken", b"xyz")])
        return await registry.read(["long", "short"])

    as_json = [list(column) for column in columns]
    assert with_registry(bench, work) == [{"columns": as_json}, {"columns": as_json[:10]}]
    with pytest.raises(StoreError, match="broken: expected a record in JSON, got b'xyz'"):
        with_registry(bench, lambda registry: registry.read_one("broken"))


def test_a_record_is_swapped_for_the_next_version_of_itself_alone(bench: Workbench) -> None:
    async def work(registry: Registry) -> object:
        return [
            await registry.versions(["refresh/a"]),
            await registry.swap("refresh/a", 0, {"by": "one"}),
            await registry.swap("refresh/a", 0, {"by": "two"}),
            await registry.swap("refresh/a", 1, {"by": "two"}),
            await registry.swap("refresh/a", 1, {"by": "one"}),
            await registry.versions(["refresh/a", "refresh/b"]),
            await registry.swap("refresh/b", 5, {"by": "one"}),
        ]

    assert with_registry(bench, work) == [
        [(0, None)],
        (1, {"by": "one"}),
        (1, {"by": "one"}),
        (2, {"by": "two"}),
        (2, {"by": "two"}),
        [(2, {"by": "two"}), (0, None)],
        (0, None),
    ]


def test_every_shape_that_was_ever_recorded_is_kept(bench: Workbench) -> None:
    shapes = [BlockShape((("amount:count", 1),)), BlockShape((("amount:moments", 3),), ("kind:last",))]

    async def work(registry: Registry) -> object:
        for shape in (*shapes, *shapes):
            await registry.record_shape("spend", shape)
        return await registry.shapes(["spend", "others"])

    assert with_registry(bench, work) == {
        "spend": {shape.schema_id: shape for shape in shapes},
        "others": {},
    }


@pytest.mark.parametrize("record", [None, {"components": 3}, {"components": [["b", 1]], "wide": []}])
def test_a_spoilt_shape_is_an_error(bench: Workbench, record: object) -> None:
    async def work(registry: Registry) -> object:
        await registry.write({"shapes/v": [1], "shape/v/00000001": record})
        return await registry.shapes(["v"])

    with pytest.raises(StoreError, match="shape/v/00000001: expected the shape of a block, got"):
        with_registry(bench, work)
