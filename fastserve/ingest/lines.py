"""Records from a stream of JSON lines, written in batches, several under way at once.

Knows lines and a `StreamWriter`, neither flags nor where the lines come from.

Invariants
1. Every line that isn't empty is written, or told as bad with its number, or lies behind ``safe_line``.
2. The records of a batch that are good are written though others of it are bad.
3. Lines that come slowly don't wait for a batch to fill: `LINGER_S` after the first it goes out.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from fastserve.api.values import json_fault
from fastserve.errors import FastserveError, StoreError, shown
from fastserve.ingest.stream import BadRecordsError
from fastserve.ingest.stream_writer import StreamWriter

LINGER_S = 0.05
IN_FLIGHT = 8
QUEUED_LINES = 20_000
TRIES = 6
FIRST_PAUSE_S = 0.1
LISTED_BAD_LINES = 1_000

Numbered = tuple[int, bytes]


@dataclass(slots=True)
class LinesReport:
    """What came of the lines. Lines count from 1; every good one up to ``safe_line`` is written."""

    counts: dict[str, int] = field(default_factory=dict)
    written: int = 0
    seconds: float = 0.0
    bad: list[tuple[int, str]] = field(default_factory=list)
    bad_count: int = 0
    safe_line: int = 0
    error: StoreError | None = None


async def ingest_lines(
    writer: StreamWriter,
    source: str,
    lines: BinaryIO,
    batch: int,
    advance: Callable[[int], None],
) -> LinesReport:
    """Write all lines as records of ``source``; ``advance`` is told how many were written.

    Raises:
        RequestError: there is no such source. StoreError: the store can't be opened.
    """
    writer.check_source(source)  # also where no line comes
    async with writer:
        return await _Lines(writer, source, batch, advance).run(lines)


class _Lines:
    def __init__(self, writer: StreamWriter, source: str, batch: int, advance: Callable[[int], None]) -> None:
        self._writer = writer
        self._source = source
        self._batch = batch
        self._advance = advance
        self._queue: asyncio.Queue[Numbered | None] = asyncio.Queue()
        self._room = threading.Semaphore(QUEUED_LINES)
        self._report = LinesReport()
        self._open: set[int] = set()  # first lines of batches that aren't written yet
        self._last_line = 0

    async def run(self, lines: BinaryIO) -> LinesReport:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(lines, loop), daemon=True).start()
        lanes = asyncio.Semaphore(IN_FLIGHT)
        failed: list[FastserveError] = []
        async with asyncio.TaskGroup() as group:
            while not failed and (taken := await self._taken()):
                await lanes.acquire()
                self._open.add(taken[0][0])
                group.create_task(self._one(taken, lanes, failed))
        report = self._report
        report.seconds = time.perf_counter() - began
        report.bad.sort()
        report.safe_line = min(self._open) - 1 if self._open else self._last_line
        if failed:
            if not isinstance(failed[0], StoreError):
                raise failed[0]
            report.error = failed[0]
        return report

    def _read(self, lines: BinaryIO, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over lines from a thread of its own: reading a pipe blocks."""
        try:
            for number, line in enumerate(lines, 1):
                self._room.acquire()
                loop.call_soon_threadsafe(self._queue.put_nowait, (number, line))
            loop.call_soon_threadsafe(self._queue.put_nowait, None)
        except RuntimeError:  # the loop has ended: nobody wants the rest
            return

    async def _taken(self) -> list[Numbered]:
        """Return the next lines: a batch, or what came within the linger; nothing at the end."""
        taken: list[Numbered] = []
        loop = asyncio.get_running_loop()
        until_s = 0.0
        while len(taken) < self._batch:
            try:
                async with asyncio.timeout_at(until_s if taken else None):
                    line = await self._queue.get()
            except TimeoutError:
                break
            if line is None:
                self._queue.put_nowait(None)
                break
            self._room.release()
            self._last_line = line[0]
            if not taken:
                until_s = loop.time() + LINGER_S
            taken.append(line)
        return taken

    async def _one(
        self, taken: list[Numbered], lanes: asyncio.Semaphore, failed: list[FastserveError]
    ) -> None:
        try:
            await self._write(taken)
            self._open.discard(taken[0][0])
        except FastserveError as error:
            failed.append(error)
        finally:
            lanes.release()

    async def _write(self, taken: list[Numbered]) -> None:
        records = [(number, record) for number, line in taken if (record := self._record(number, line))]
        text = b"".join(line for _, line in taken)
        name = f"{self._source}:{taken[0][0]}:{hashlib.sha256(text).hexdigest()}"
        while records:
            try:
                counts = await self._persistently([record for _, record in records], name)
            except BadRecordsError as error:
                bad = {entry.number: entry.message for entry in reversed(error.errors)}
                for place, message in sorted(bad.items()):
                    self._tell_bad(records[place][0], message)
                records = [one for place, one in enumerate(records) if place not in bad]
                continue
            for view, count in counts.items():
                self._report.counts[view] = self._report.counts.get(view, 0) + count
            self._report.written += len(records)
            self._advance(len(records))
            return

    async def _persistently(self, records: list[dict[str, Any]], name: str) -> dict[str, int]:
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return await self._writer.write(self._source, records, request_id=name)
            except StoreError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return await self._writer.write(self._source, records, request_id=name)

    def _record(self, number: int, line: bytes) -> dict[str, Any] | None:
        if not line.strip():
            return None
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            fault = json_fault(line, error).replace("at line 1, column", "at character")
            self._tell_bad(number, f"expected a JSON object, got malformed JSON: {fault}")
            return None
        if type(record) is not dict or not record:
            self._tell_bad(number, f"expected a JSON object with a record's columns, got {shown(record)}")
            return None
        return record

    def _tell_bad(self, number: int, message: str) -> None:
        self._report.bad_count += 1
        if len(self._report.bad) < LISTED_BAD_LINES:
            self._report.bad.append((number, message))
