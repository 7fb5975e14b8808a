"""Transformations of pushed records: applied batch by batch where that is right, refused where it isn't."""

from __future__ import annotations

import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest import BadRecordsError, StreamWriter
from fastserve.tiles.windows import MINUTE_NS
from tests.ingest.stream_world import NOW_NS, StreamWorld, cents, record
from tests.ingest.support import Workbench

TILE_NS = NOW_NS // (5 * MINUTE_NS) * 5 * MINUTE_NS
SOURCE = """
    pushes = PushSource(
        "pushes",
        [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64), Field("cents", Int64),
         Field("shop", String)],
        timestamp_field="at",
    )
"""
VIEW = """
    spend = FeatureView(
        "spend", user, pushes, [Aggregate(Field("doubled", Int64), "sum", TimeWindow(days(7)))],
        aggregation_interval=timedelta(minutes=5), transformation={transformation},
    )
"""
FUNCTION = """
    def doubled(batch: pyarrow.RecordBatch):
        kept = batch.filter(pyarrow.compute.not_equal(batch["shop"], "none"))
        two = pyarrow.compute.multiply(kept["cents"], 2)
        return pyarrow.table([kept["user_id"], kept["at"], two], ["user_id", "at", "doubled"])
"""
SQL = repr("""SELECT user_id, "at", cents * 2 AS doubled FROM pushes WHERE shop <> 'none'""")


def defined(bench: Workbench, transformation: str, before: str = "") -> StreamWorld:
    return StreamWorld(bench, SOURCE + before + VIEW.format(transformation=transformation))


@pytest.mark.parametrize("kind", ["sql", "function"])
def test_the_transformed_rows_are_what_counts(bench: Workbench, kind: str) -> None:
    world = defined(bench, SQL) if kind == "sql" else defined(bench, "doubled", FUNCTION)

    async def story(writer: StreamWriter) -> None:
        records = [record(cents=5), record("u2", cents=7), record(shop="none"), record(cents=None)]
        assert await writer.write("pushes", records) == {"spend": 3}
        assert await writer.write("pushes", [record(shop="none")]) == {"spend": 0}

    world.told(story)
    assert cents(world.tiles()) == {("u1", TILE_NS): 10, ("u2", TILE_NS): 14}


@pytest.mark.parametrize("kind", ["sql", "function"])
def test_times_pass_through_to_the_nanosecond(bench: Workbench, kind: str) -> None:
    world = defined(bench, SQL) if kind == "sql" else defined(bench, "doubled", FUNCTION)
    just_before = record(at="2025-12-31T23:59:59.999999999Z")
    world.told(lambda writer: _write(writer, [just_before, record(at="2026-01-01T00:00:00.000000000Z")]))
    assert cents(world.tiles()) == {("u1", TILE_NS): 200, ("u1", TILE_NS - 5 * MINUTE_NS): 200}


async def _write(writer: StreamWriter, records: list[dict[str, object]]) -> None:
    await writer.write("pushes", records)


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT user_id, "at", sum(cents) AS doubled FROM pushes GROUP BY ALL',
        'SELECT user_id, "at", sum(cents) OVER (PARTITION BY user_id) AS doubled FROM pushes',
        'SELECT DISTINCT user_id, "at", cents AS doubled FROM pushes',
        'SELECT user_id, "at", cents AS doubled FROM pushes ORDER BY "at" LIMIT 1',
        'SELECT a.user_id, a."at", b.cents AS doubled FROM pushes a JOIN pushes b USING (user_id)',
        'SELECT user_id, "at", (SELECT max(cents) FROM pushes) AS doubled FROM pushes',
        'SELECT user_id, "at", cents AS doubled FROM pushes WHERE "at" < {until}',
        'SELECT user_id, "at", (random() * cents)::BIGINT AS doubled FROM pushes',
        'SELECT user_id, "at", nothing AS doubled FROM pushes',
        'SELECT user_id, "at", cents AS doubled FROM pushes UNION SELECT user_id, "at", cents FROM pushes',
    ],
)
def test_sql_that_isnt_row_by_row_is_refused_at_definition(bench: Workbench, sql: str) -> None:
    world = defined(bench, repr(sql))
    with pytest.raises(DefinitionError, match="FeatureView 'spend': transformation \\(expected SQL"):
        world.writer()


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT user_id, "at", CASE WHEN cents > 5 THEN 1 ELSE 0 END AS doubled FROM {source}',
        "WITH a AS (SELECT *, length(shop) AS doubled FROM pushes) SELECT * FROM a WHERE doubled > 0",
        'SELECT user_id, "at", unnest([cents, cents]) AS doubled FROM pushes',
    ],
)
def test_sql_that_is_row_by_row_is_taken(bench: Workbench, sql: str) -> None:
    world = defined(bench, repr(sql))
    world.told(lambda writer: _write(writer, [record()]))
    assert len(world.tiles()) == 1


def test_a_function_of_a_whole_table_is_refused_at_definition(bench: Workbench) -> None:
    world = defined(
        bench, "whole", FUNCTION.replace("batch: pyarrow.RecordBatch", "batch").replace("doubled(", "whole(")
    )
    with pytest.raises(DefinitionError, match=r"annotated pyarrow\.RecordBatch"):
        world.writer()


def test_what_the_authors_code_raises_is_told_and_nothing_is_written(bench: Workbench) -> None:
    world = defined(bench, "bad", "\n    def bad(batch: pyarrow.RecordBatch):\n        raise KeyError('x')\n")

    async def story(writer: StreamWriter) -> None:
        with pytest.raises(BadRecordsError, match="transformation of view 'spend': KeyError"):
            await writer.write("pushes", [record()])

    world.told(story)
    assert world.tiles() == {}


def test_rows_that_the_transformation_spoils_are_refused(bench: Workbench) -> None:
    sql = 'SELECT NULL::VARCHAR AS user_id, "at", cents AS doubled FROM pushes'
    world = defined(bench, repr(sql))

    async def story(writer: StreamWriter) -> None:
        with pytest.raises(BadRecordsError, match="row 0 of what the transformation made"):
            await writer.write("pushes", [record()])

    world.told(story)
