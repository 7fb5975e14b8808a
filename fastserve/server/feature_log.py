"""A sample of requests and the vectors they were answered with, in files, to be compared with training data.

It stands before an application, where the operator has named a folder, and nowhere else. It knows of requests
no more than their path, their bytes and their answer's.

Invariants
1. Only answers with status 200 are kept, word for word as the client got them; packed ones as the JSON that
   they stand for.
2. Nothing waits for a file: lines are written by a thread, once a second. What doesn't fit into `HELD_BYTES`
   meanwhile, or can't be written, is left out, and the log says how much.
3. A file holds one JSON object per line, is its worker's alone, and only its owner may read it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import orjson

from fastserve.api.unpack import answer_document
from fastserve.errors import InvariantError
from fastserve.server.exchange import Answering, Application, Exchange, Headers
from fastserve.server.feast_handler import PATH as FEAST_PATH
from fastserve.wire.accept import MSGPACK

LOGGER = logging.getLogger("fastserve")
ACTIONS = ("/get-features", "/get-features-batch", FEAST_PATH)
WRITE_EVERY_S = 1.0
HELD_BYTES = 16 * 1024 * 1024
FILE_BYTES = 64 * 1024 * 1024
"""After this much another file is begun."""


class Kept(NamedTuple):
    """A request and its answer."""

    time_ns: int
    path: str
    request: bytes
    answer: bytes
    is_packed: bool


class Tap:
    """An exchange's connection, and the log beside it."""

    __slots__ = ("_connection", "_keep")

    def __init__(self, connection: Answering, keep: Callable[[Exchange, bytes, bool], None]) -> None:
        self._connection = connection
        self._keep = keep

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Keep a good answer, and send it."""
        if status == 200:
            self._keep(exchange, body, content_type == MSGPACK)
        self._connection.send_answer(exchange, status, body, content_type, headers)

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        """Keep an answer, and send it."""
        self._keep(exchange, b"".join(parts), False)
        self._connection.send_json(exchange, parts)


class FeatureLog:
    """Calls an application, and keeps one in ``every`` of its requests for features.

    ``uniform`` draws from [0, 1).
    """

    def __init__(
        self,
        application: Application,
        folder: Path,
        every: int,
        uniform: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._application = application
        self._folder = folder
        self._share = 1 / every
        self._uniform = uniform
        self._loop = loop
        self._kept: list[Kept] = []
        self._held_bytes = 0
        self._left_out = 0
        self._file: Path | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def __call__(self, exchange: Exchange) -> None:
        """Hand over an exchange, which may be one whose answer is to be kept."""
        if self._uniform() < self._share and exchange.path.endswith(ACTIONS):
            exchange.tap(lambda connection: Tap(connection, self._keep))
        self._application(exchange)

    def start(self) -> None:
        """Write from now on, once a second."""
        self._timer = self._loop.call_later(WRITE_EVERY_S, self._on_time)

    async def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._write_behind()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _keep(self, exchange: Exchange, answer: bytes, is_packed: bool) -> None:
        size = len(exchange.body) + len(answer)
        if self._held_bytes + size > HELD_BYTES:
            self._left_out += 1
            return
        self._held_bytes += size
        self._kept.append(Kept(time_ns(), exchange.path, exchange.body, answer, is_packed))

    def _on_time(self) -> None:
        if self._writing is None or self._writing.done():
            self._write_behind()
        self.start()

    def _write_behind(self) -> None:
        if self._left_out:
            LOGGER.warning("feature log: %d vectors left out, more than can be written", self._left_out)
            self._left_out = 0
        if self._kept:
            kept, self._kept, self._held_bytes = self._kept, [], 0
            self._writing = self._loop.run_in_executor(None, self._write, kept)

    # --- in a thread ------------------------------------------------------------------------------------

    def _write(self, kept: Sequence[Kept]) -> None:
        lines = []
        fault: Exception | None = None
        for each in kept:
            try:
                lines.append(_line(each))
            except (orjson.JSONDecodeError, orjson.JSONEncodeError, InvariantError) as error:
                fault = error  # one caller's request is no other's: orjson reads deeper than it writes
        if fault is not None:
            LOGGER.warning("feature log: %d vectors left out: %s", len(kept) - len(lines), fault)
        try:
            self._append(b"".join(lines))
        except OSError as error:
            self._file = None
            LOGGER.warning("feature log: %d vectors left out: %s", len(lines), error)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._folder / f"features-{time_ns()}-{os.getpid()}.jsonl"
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "ab") as opened:
            opened.write(data)
            if opened.tell() > FILE_BYTES:
                self._file = None


def _line(kept: Kept) -> bytes:
    """Return a line; texts that came over several lines are put into one."""
    parts = {
        "time_ns": kept.time_ns,
        "path": kept.path,
        "request": orjson.loads(kept.request),
        "answer": answer_document(kept.answer) if kept.is_packed else orjson.loads(kept.answer),
    }
    return orjson.dumps(parts, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
