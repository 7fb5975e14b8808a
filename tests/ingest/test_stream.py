"""Stream ingest into a store: what is written, what counts once, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from fastserve.errors import RequestError, StoreError
from fastserve.ingest import BadRecordsError, StreamWriter
from fastserve.ingest.stream_blocks import units_of
from fastserve.store.interface import VersionedRow
from fastserve.store.local.store import LocalStore
from fastserve.tiles.windows import MINUTE_NS
from tests.ingest.stream_world import DAY_NS, NOW_NS, REPO, SECOND_NS, StreamWorld, cents, record
from tests.ingest.support import Workbench

TILE_NS = NOW_NS // (5 * MINUTE_NS) * 5 * MINUTE_NS


@pytest.fixture
def world(bench: Workbench) -> StreamWorld:
    return StreamWorld(bench)


def test_records_go_to_every_view_of_their_source(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        counts = await writer.write(
            "pushes", [record(cents=5), record(cents=7), record("u2", 300, amount=2.5)]
        )
        assert counts == {"spend": 3, "latest": 3}
        # seen at once, while the writer is still open
        assert cents(await world.read_tiles()) == {
            ("u1", TILE_NS): 12,
            ("u2", TILE_NS - 5 * MINUTE_NS): 100,
        }

    world.told(story)
    assert world.row("u2") == {"amount": 2.5, "shop": b'"s1"'}


def test_a_request_sent_again_counts_once(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        await writer.write("pushes", [record()], request_id="a")
        await writer.write("pushes", [record()], request_id="a")
        await writer.write("pushes", [record()], request_id="b")
        for _ in range(3):
            await writer.write("pushes", [record(cents=1)])
        assert writer.counts.repeats == 3

    world.told(story)
    assert cents(world.tiles()) == {("u1", TILE_NS): 201}


def test_a_request_sent_again_through_another_writer_counts_once(world: StreamWorld) -> None:
    for _ in range(2):
        world.told(lambda writer: _write(writer, [record(), record("u2")], "a"))
    assert cents(world.tiles()) == {("u1", TILE_NS): 100, ("u2", TILE_NS): 100}


def test_the_same_request_twice_at_once_counts_once(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        async with world.writer() as other:
            await asyncio.gather(
                *[_write(one, [record()], "a") for one in (writer, writer, other, other, writer)]
            )

    world.told(story)
    assert cents(world.tiles()) == {("u1", TILE_NS): 100}


async def _write(writer: StreamWriter, records: Sequence[dict[str, Any]], name: str | None = None) -> None:
    await writer.write("pushes", records, request_id=name)


def test_equal_records_of_one_request_all_count(world: StreamWorld) -> None:
    world.told(lambda writer: _write(writer, [record()] * 5))
    assert cents(world.tiles()) == {("u1", TILE_NS): 500}


def test_concurrent_writers_of_one_key_lose_nothing(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        async with world.writer() as other:
            await asyncio.gather(
                *[
                    (writer, other)[number % 2].write(
                        "pushes",
                        [record(cents=1), record(f"u{number % 3}", cents=1000)],
                        request_id=str(number),
                    )
                    for number in range(120)
                ]
            )
            writes = writer.counts.writes + other.counts.writes
            assert writes < 240, "requests in flight share writes"

    world.told(story)
    assert cents(world.tiles()) == {
        ("u0", TILE_NS): 40_000,
        ("u1", TILE_NS): 40_120,
        ("u2", TILE_NS): 40_000,
    }


def test_many_records_of_one_request_are_one_write_for_each_block(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        records = [record("u1", 1 + number / 10, cents=1) for number in range(1200)]
        assert await writer.write("pushes", records) == {"spend": 1200, "latest": 1200}
        assert writer.counts.writes == 1

    world.told(story)
    assert sum(cents(world.tiles()).values()) == 1200


def test_late_events_land_in_their_tile(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        for ago_s in (0, 3 * 86_400, 6.9 * 86_400, 3 * 86_400):
            await _write(writer, [record(ago_s=ago_s)], str(ago_s))

    world.told(story)
    assert cents(world.tiles()) == {
        ("u1", TILE_NS): 100,
        ("u1", TILE_NS - 3 * DAY_NS): 100,
        ("u1", (NOW_NS - int(6.9 * DAY_NS)) // (5 * MINUTE_NS) * 5 * MINUTE_NS): 100,
    }


def test_of_attributes_the_newest_time_wins_and_of_equal_times_the_last(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        await _write(writer, [record(ago_s=10, shop="old")])
        await _write(writer, [record(ago_s=5, shop="new")])
        await _write(writer, [record(ago_s=20, shop="older")])
        await _write(writer, [record("u2", 5, shop="first"), record("u2", 5, shop="last")])

    world.told(story)
    assert world.row("u1") == {"amount": 1.0, "shop": b'"new"'}
    assert world.row("u2") == {"amount": 1.0, "shop": b'"last"'}


def test_every_bad_record_is_listed_and_nothing_is_written(world: StreamWorld) -> None:
    bad = [
        (0, "spend, latest", "`cents`: expected int64", record(cents=1.5)),
        (2, "spend, latest", "Unknown column", record(colour="red")),
        (3, "spend, latest", "`at`: expected timestamp", record(at="now")),
        (4, "spend", "`at`: expected a time, got null", record(at=None)),
        (4, "latest", "`at`: expected a time, got null", record(at=None)),
        (5, "spend", "`user_id`: expected a value", record(user_id=None)),
        (5, "latest", "`user_id`: expected a value", record(user_id=None)),
        (6, "spend", "expected one until 2026-01-01T00:01:00Z", record(ago_s=-61)),
        (6, "latest", "expected one until 2026-01-01T00:01:00Z", record(ago_s=-61)),
        (7, "spend", "no window of 'spend' reaches further back", record(ago_s=8 * 86_400)),
        (8, "spend", "above -2^63", record(cents=-(2**63))),
        (9, "spend", "at most 2032 bytes", record("x" * 2033)),
        (9, "latest", "at most 2032 bytes", record("x" * 2033)),
    ]
    records = [record() for _ in range(11)]
    for number, *_, wrong in bad:
        records[number] = wrong

    async def story(writer: StreamWriter) -> None:
        with pytest.raises(BadRecordsError) as refused:
            await _write(writer, records)
        found = sorted((error.number, error.views, error.message) for error in refused.value.errors)
        assert [(number, views) for number, views, _ in found] == sorted(
            (number, views) for number, views, *_ in bad
        )
        for number, views, expected, _ in bad:
            assert any(expected in message for at, of, message in found if (at, of) == (number, views)), (
                expected
            )

    world.told(story)
    assert world.tiles() == {}
    assert world.row("u1") is None


def test_times_at_the_bounds_are_taken(world: StreamWorld) -> None:
    world.told(lambda writer: _write(writer, [record(ago_s=-60), record("u2", ago_s=7 * 86_400)]))
    assert len(world.tiles()) == 2


def test_the_bound_ahead_of_the_clock_can_be_set(world: StreamWorld) -> None:
    async def story() -> None:
        async with world.writer(max_future_s=0) as writer:
            await _write(writer, [record()])
            with pytest.raises(BadRecordsError):
                await _write(writer, [record(ago_s=-1e-9)])

    asyncio.run(story())


def test_unknown_sources_and_empty_requests_are_refused(world: StreamWorld) -> None:
    async def story(writer: StreamWriter) -> None:
        with pytest.raises(RequestError, match="Unknown push source 'other': expected 'pushes'"):
            await writer.write("other", [record()])
        with pytest.raises(RequestError, match="expected 1 to"):
            await writer.write("pushes", [])

    world.told(story)


def test_python_values_mean_what_they_mean_over_http(world: StreamWorld) -> None:
    east = timezone(timedelta(hours=2))
    moments = [
        datetime.fromtimestamp(NOW_NS // SECOND_NS, UTC),
        datetime.fromtimestamp(NOW_NS // SECOND_NS, east),
        datetime.fromtimestamp(NOW_NS // SECOND_NS, UTC).replace(tzinfo=None),
    ]
    records = [record(at=moment, amount=float("nan")) for moment in moments]
    world.told(lambda writer: _write(writer, records))
    (words,) = world.tiles().values()
    assert words[0] == 300
    assert world.row("u1") is not None


def test_events_before_the_start_time_are_left_out(bench: Workbench) -> None:
    world = StreamWorld(
        bench, REPO.replace("aggregation_interval", "start_time=datetime(2025, 12, 31), aggregation_interval")
    )
    world.told(lambda writer: _write(writer, [record(), record(ago_s=2 * 86_400)]))
    assert cents(world.tiles()) == {("u1", TILE_NS): 100}


def test_a_lifetime_takes_events_of_any_age_and_its_blocks_stay(bench: Workbench) -> None:
    world = StreamWorld(bench, REPO.replace("TimeWindow(days(7))", "LifetimeWindow()"))
    world.told(lambda writer: _write(writer, [record(ago_s=86_400 * 365 * 20)]))
    assert len(world.tiles()) == 1
    assert expiries(world) == [0]


def expiries(world: StreamWorld) -> list[int]:
    plan = world.plans["spend"]
    assert plan.stream is not None
    table = plan.stream.table

    async def read(store: Any) -> list[int]:
        keys = [key async for rows in store.scan_rows(table) for key, _ in rows]
        return sorted(row.expires_s for row in await store.get_versioned(table, keys))

    return world.bench.with_store(read)


def test_blocks_expire_after_the_longest_window_and_two_horizons(world: StreamWorld) -> None:
    world.told(lambda writer: _write(writer, [record(), record(ago_s=6 * 86_400)]))
    day_s = 86_400
    end_s = (NOW_NS // (2 * DAY_NS) + 1) * 2 * day_s
    assert expiries(world) == [end_s - 6 * day_s + 11 * day_s, end_s + 11 * day_s]


def test_with_files_blocks_expire_after_three_horizons_but_not_at_once(bench: Workbench) -> None:
    place = 'timestamp_field="at",\n    )\n    spend'
    files = 'batch_source=FileSource("files", "f.csv", timestamp_field="at"), '
    world = StreamWorld(bench, REPO.replace(place, files + place))
    world.told(lambda writer: _write(writer, [record(), record(ago_s=6.9 * 86_400)]))
    end_s = (NOW_NS // (2 * DAY_NS) + 1) * 2 * 86_400
    assert expiries(world) == sorted(
        [end_s + 6 * 86_400, max(end_s - 8 * 86_400 + 6 * 86_400, NOW_NS // SECOND_NS + 86_400)]
    )


def test_an_added_aggregate_takes_over_the_blocks_that_there_are(world: StreamWorld) -> None:
    world.told(lambda writer: _write(writer, [record()], "a"))
    more = 'Aggregate(Field("amount", Float64), "max", TimeWindow(days(1))),\n         '
    place = 'Aggregate(Field("amount", Float64), "count"'
    world.define(REPO.replace(place, more + place))
    world.told(lambda writer: _write(writer, [record(cents=11)], "b"))
    assert cents(world.tiles()) == {("u1", TILE_NS): 111}


def test_a_request_that_failed_half_way_counts_once_when_it_is_sent_again(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails before some writes and after others, as a lost answer looks."""
    calls = 0
    real = LocalStore.replace_row

    async def failing(
        store: LocalStore, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        nonlocal calls
        calls += 1
        if calls % 3 == 1:
            raise StoreError("it failed before the write", retryable=True)
        result = await real(store, table, key, row, timeout_s=timeout_s)
        if calls % 3 == 2:
            raise StoreError("it failed after the write", retryable=True)
        return result

    monkeypatch.setattr(LocalStore, "replace_row", failing)

    async def story(writer: StreamWriter) -> None:
        for number in range(10):
            records = [record(f"u{user}") for user in range(5)]
            while True:
                try:
                    await _write(writer, records, f"request {number}")
                except StoreError:
                    continue
                break

    world.told(story)
    assert cents(world.tiles()) == {(f"u{user}", TILE_NS): 1000 for user in range(5)}


def test_a_store_that_stands_still_ends_the_request_in_time(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    real = LocalStore.replace_row

    async def waiting(
        store: LocalStore, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        await release.wait()
        return await real(store, table, key, row, timeout_s=timeout_s)

    async def story() -> None:
        monkeypatch.setattr(LocalStore, "replace_row", waiting)
        async with world.writer(timeout_s=0.5) as writer:  # ample for all that comes before the write
            with pytest.raises(StoreError, match="weren't written in time") as late:
                await _write(writer, [record()], "a")
            assert late.value.timed_out
            release.set()
            await _write(writer, [record()], "a")
            assert writer.counts.repeats == 1

    asyncio.run(story())
    assert cents(world.tiles()) == {("u1", TILE_NS): 100}


def test_a_block_that_would_be_too_long_is_refused_with_what_to_do(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.ingest.stream_blocks.MAX_ROW_BYTES", 200)

    async def story(writer: StreamWriter) -> None:
        await _write(writer, [record()])
        with pytest.raises(StoreError, match="a longer aggregation_interval"):
            await _write(writer, [record(ago_s=300 * number) for number in range(1, 6)])

    world.told(story)
    assert cents(world.tiles()) == {("u1", TILE_NS): 100}


def test_write_units_are_begun_kilobytes() -> None:
    assert units_of("k", VersionedRow(1, bytes(24))) == 1
    assert units_of("k", VersionedRow(1, bytes(1000))) == 1
    assert units_of("k", VersionedRow(1, bytes(1000), bytes(24))) == 2


def test_nothing_is_pushed_to_ordinary_items(bench: Workbench) -> None:
    items = REPO.replace(
        'Attribute("shop", String)]', 'Attribute("shop", String)], row_format=AttributesFormat()'
    )
    world = StreamWorld(bench, items)

    async def story(writer: StreamWriter) -> None:
        with pytest.raises(RequestError, match="got the attributes format in latest"):
            await _write(writer, [record()])

    world.told(story)
    assert world.tiles() == {}


KEYED = """
    pushes = PushSource(
        "pushes",
        [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64), Field("shop", String)],
        timestamp_field="at",
    )
    spend = FeatureView(
        "spend", user, pushes,
        [Aggregate(Field("cents", Int64), "sum", TimeWindow(days(7))),
         Aggregate(Field("cents", Int64), last(2), TimeWindow(days(7)))],
        aggregation_interval=timedelta(minutes=5), aggregation_secondary_key=Field("shop", String),
    )
"""


def test_texts_too_long_for_wide_aggregates_are_refused(bench: Workbench) -> None:
    world = StreamWorld(bench, KEYED)

    def sent(shop: str | None) -> dict[str, Any]:
        whole = record(shop=shop)
        del whole["amount"]
        return whole

    async def story(writer: StreamWriter) -> None:
        await _write(writer, [sent("s" * 1024), sent(None), sent("é")])
        for wrong in ("s" * 1025, "é" * 513):
            with pytest.raises(BadRecordsError, match="`shop`: expected text of at most 1024 bytes"):
                await _write(writer, [sent(wrong)])

    world.told(story)
    assert len(world.tiles()) == 1
