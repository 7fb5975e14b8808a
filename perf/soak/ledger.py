"""Pushed events and their sums: what was sent, what was acknowledged, and what reads may say meanwhile.

Writers repeat a request until it is acknowledged, as public clients do, and now and then once more after
that. Every other writer names its requests; those of the rest are known by their records.

Invariants:
1. An event is entered as sent before its bytes leave, and as acknowledged after the answer has come; a
   request that is repeated is entered once.
2. At any moment a key's totals lie between what was acknowledged and what was sent; when all writers have
   ended, both are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from perf.load.key_laws import entity_key
from perf.soak.account import LATE, LOST, RIGHT, WRONG, Account
from perf.soak.vectors import PATH, WORKSPACE, post

Totals = npt.NDArray[np.int64]

SERVICE = "pushed"
_SPREAD_S = 3 * 3600
_AGAIN_SHARE = 0.02
_ANSWER_WITHIN_S = 12.0
_RETRY_S = 0.05
_UNITS_MAX = 2**40
_PORT_SIDE = "127.0.0.1"
_REPEATED = frozenset({429, 500, 502, 503, 504})


class Ledger:
    """Sums by key: lines of (count, sum of units)."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.sent: Totals = np.zeros((2, keys), np.int64)
        self.acknowledged: Totals = np.zeros((2, keys), np.int64)
        self.events = 0
        self.requests = 0
        self.repeats = 0

    def enter(self, column: Totals, events: list[tuple[int, int, int]]) -> None:
        """Add events to a column."""
        for key, _, units in events:
            column[0, key] += 1
            column[1, key] += units


class TotalsQuestion:
    """Asks for all keys' totals and holds them against the ledger. Made when it is sent."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._least = ledger.acknowledged.copy()

    def request(self, port: int, *, close: bool = False) -> bytes:
        """Give the bytes to send."""
        rows = [{"joinKeyMap": {"user_id": entity_key(key)}} for key in range(self._ledger.keys)]
        params = {"workspaceName": WORKSPACE, "featureServiceName": SERVICE, "requestData": rows}
        return post(f"{PATH}-batch", orjson.dumps({"params": params}), port, close=close)

    def judge(self, body: bytes, sent_s: float, done_s: float) -> tuple[str, str, int]:
        """Give what an answer of status 200 is."""
        del sent_s, done_s
        most = self._ledger.sent
        rows = [row["features"] for row in orjson.loads(body)["result"]]
        found = np.array([[int(row[at] or 0) for row in rows] for at in (0, 1)], np.int64)
        bad = np.argwhere((found < self._least) | (found > most))
        if len(bad):
            line, key = bad[0]
            span = f"{self._least[line, key]} to {most[line, key]}"
            what = f"{len(bad)} totals; line {line}, key {key}: expected {span}, got {found[line, key]}"
            return WRONG, what, 0
        return RIGHT, "", len(rows)


class Writer:
    """Pushes events over one connection after the other, one request at a time."""

    def __init__(
        self, number: int, ledger: Ledger, account: Account, port: int, batch: int, base_s: float, seed: int
    ) -> None:
        self._number = number
        self._ledger = ledger
        self._account = account
        self._port = port
        self._batch = batch
        self._base_s = base_s
        self._random = random.Random(f"{seed}/{number}")
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._requests = 0

    async def run(self, done: asyncio.Event, gap_s: float, events_max: int) -> None:
        """Push until it is done, or until all writers have pushed so many events."""
        ledger = self._ledger
        while not done.is_set() and ledger.events < events_max:
            began_s = time.monotonic()
            await self._push()
            rest_s = gap_s - (time.monotonic() - began_s)
            if rest_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), rest_s)
        self._drop()

    async def _push(self) -> None:
        ledger = self._ledger
        events = self._events()
        ledger.events += len(events)
        ledger.enter(ledger.sent, events)
        self._requests += 1
        request = self._request(events)
        while not await self._is_acknowledged(request):
            ledger.repeats += 1
            await asyncio.sleep(_RETRY_S * (0.5 + self._random.random()))
        ledger.enter(ledger.acknowledged, events)
        ledger.requests += 1
        if self._random.random() < _AGAIN_SHARE:
            ledger.repeats += 1
            await self._is_acknowledged(request)

    def _events(self) -> list[tuple[int, int, int]]:
        draw = self._random.randrange
        base_ns = int(self._base_s * 1e9)
        return [
            (draw(self._ledger.keys), base_ns + draw(_SPREAD_S * 10**9), draw(1, _UNITS_MAX))
            for _ in range(self._batch)
        ]

    def _request(self, events: list[tuple[int, int, int]]) -> bytes:
        records = [
            {"record": {"user_id": entity_key(key), "at": _time_text(at_ns), "units": units}}
            for key, at_ns, units in events
        ]
        body = {"workspace_name": WORKSPACE, "dry_run": False, "records": {"events": records}}
        named = f"Idempotency-Key: {self._number}-{self._requests}\r\n" if self._number % 2 == 0 else ""
        return post("/ingest", orjson.dumps(body), self._port, headers=named)

    async def _is_acknowledged(self, request: bytes) -> bool:
        sent_s = time.time()
        kind, detail = LOST, ""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                status, content = await self._exchange(request)
            kind, detail = str(status), content[:300].decode(errors="replace")
            if status == 200:
                kind = RIGHT
            elif status not in _REPEATED:
                raise AssertionError(f"a push was answered {status}: {detail}")
        except TimeoutError:
            kind = LATE
            self._drop()
        except (OSError, EOFError, ValueError) as error:
            detail = repr(error)
            self._drop()
        self._account.note("ingest", kind, detail, sent_s, time.time())
        return kind == RIGHT

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(_PORT_SIDE, self._port)
        reader, writer = self._reader, self._writer
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        content = await reader.readexactly(length)
        if "connection: close" in head:
            self._drop()
        return int(head.split(" ", 2)[1]), content

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


def _time_text(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z"


async def totals_now(port: int, ledger: Ledger) -> Totals:
    """Read all keys' totals once.

    Raises:
        OSError: the server can't be asked, or answers something else than 200.
    """
    question = TotalsQuestion(ledger)
    reader, writer = await asyncio.open_connection(_PORT_SIDE, port)
    try:
        writer.write(question.request(port, close=True))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        content = await reader.read()
    finally:
        writer.transport.abort()
    if not head.startswith("HTTP/1.1 200"):
        raise OSError(f"{head[:40]!r} {content[:200]!r}")
    rows: list[dict[str, Any]] = orjson.loads(content)["result"]
    return np.array([[int(row["features"][at] or 0) for row in rows] for at in (0, 1)], np.int64)
