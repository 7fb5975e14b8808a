"""JSON lines into a store."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from pathlib import Path

import orjson
import pytest

from fastserve.errors import RequestError, StoreError
from fastserve.ingest.lines import LinesReport, ingest_lines
from fastserve.ingest.stream_writer import StreamWriter
from tests.ingest.stream_world import StreamWorld, cents, record
from tests.ingest.support import Workbench


@pytest.fixture
def world(bench: Workbench) -> StreamWorld:
    return StreamWorld(bench)


def written(world: StreamWorld, text: bytes, batch: int = 10, source: str = "pushes") -> LinesReport:
    return asyncio.run(ingest_lines(world.writer(), source, io.BytesIO(text), batch, lambda _: None))


def lines(*records: dict[str, object]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in records)


def test_every_line_is_a_record(world: StreamWorld) -> None:
    told: list[int] = []
    text = lines(*[record(f"u{number % 3}", cents=1) for number in range(1005)]).rstrip()
    report = asyncio.run(ingest_lines(world.writer(), "pushes", io.BytesIO(text), 100, told.append))
    assert (report.written, report.bad_count, report.error) == (1005, 0, None)
    assert report.counts == {"spend": 1005, "latest": 1005}
    assert sum(told) == 1005
    assert report.safe_line == 1005
    assert sum(cents(world.tiles()).values()) == 1005


def test_bad_lines_are_told_by_number_and_the_others_written(world: StreamWorld) -> None:
    text = (
        lines(record(cents=1))
        + b"{broken\n\n[1]\n"
        + lines(record(cents="x"), record(cents=10), record(user_id=None))
    )
    report = written(world, text)
    assert [number for number, _ in report.bad] == [2, 4, 5, 7]
    assert "malformed JSON" in report.bad[0][1]
    assert report.bad[0][1].endswith("at character 2")
    assert "expected a JSON object" in report.bad[1][1]
    assert "Column `cents`" in report.bad[2][1]
    assert (report.written, report.bad_count) == (2, 4)
    assert sum(cents(world.tiles()).values()) == 11


def test_the_same_file_again_counts_once(world: StreamWorld) -> None:
    text = lines(*[record(cents=1) for _ in range(25)])
    for _ in range(2):
        assert written(world, text).written == 25
    assert sum(cents(world.tiles()).values()) == 25


def test_equal_lines_all_count(world: StreamWorld) -> None:
    written(world, lines(*[record(cents=1)] * 25), batch=1)
    assert sum(cents(world.tiles()).values()) == 25


def test_no_lines_are_no_records(world: StreamWorld) -> None:
    assert written(world, b"").written == 0
    assert written(world, b"\n\n").written == 0


def test_an_unknown_source_is_the_callers_fault(world: StreamWorld) -> None:
    for text in (lines(record()), b""):
        with pytest.raises(RequestError, match="Unknown push source"):
            written(world, text, source="other")


def test_a_store_that_fails_for_good_ends_it_and_tells_from_where_on(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StreamWriter.write

    async def failing(
        writer: StreamWriter, source: str, records: list[dict[str, object]], **more: str
    ) -> dict[str, int]:
        if any(one["cents"] == 13 for one in records):
            raise StoreError("no room", retryable=False)
        return await real(writer, source, records, **more)

    monkeypatch.setattr(StreamWriter, "write", failing)
    report = written(world, lines(*[record(cents=number) for number in range(20)]), batch=5)
    assert report.error is not None
    assert report.safe_line == 10


def test_lines_that_come_slowly_are_written_as_they_come(world: StreamWorld, tmp_path: Path) -> None:
    pipe_out, pipe_in = os.pipe()
    seen = threading.Event()

    def advance(count: int) -> None:
        seen.set()

    def feed() -> None:
        with os.fdopen(pipe_in, "wb") as pipe:
            pipe.write(lines(record()))
            pipe.flush()
            assert seen.wait(20), "the first line is written before a second comes"
            pipe.write(lines(record("u2")))

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(pipe_out, "rb") as pipe:
        report = asyncio.run(ingest_lines(world.writer(), "pushes", pipe, 100, advance))
    thread.join()
    assert report.written == 2
