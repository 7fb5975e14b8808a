"""Tests of `perf.load.stamped_socket`: real sockets of this machine."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop

from perf.load.stamped_socket import StampedSocket


class Side:
    """A stamped socket whose other end is an ordinary one."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.came_ns: list[int] = []
        self.losses = 0
        self.news = asyncio.Event()
        self._buffer = bytearray(65_536)
        listener = socket.create_server(("127.0.0.1", 0))
        self.other = socket.create_connection(listener.getsockname())
        own, _ = listener.accept()
        listener.close()
        own.setblocking(False)
        loop = asyncio.get_running_loop()
        self.stamped = StampedSocket(loop, own, memoryview(self._buffer), self._on_data, self._on_lost)

    def end(self) -> None:
        self.stamped.close()
        self.other.close()

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)

    def _on_data(self, count: int, came_ns: int) -> None:
        self.data += self._buffer[:count]
        self.came_ns.append(came_ns)
        self.news.set()

    def _on_lost(self) -> None:
        self.losses += 1
        self.news.set()


def test_bytes_that_waited_for_a_busy_process_are_dated_by_their_coming() -> None:
    async def scene() -> list[int]:
        side = Side()
        sent_ns = []
        for number in range(1, 6):  # the kernel begins to stamp some time after it was asked to
            side.other.sendall(b"hello")
            sent_ns.append(time.monotonic_ns())
            time.sleep(0.03)  # noqa: ASYNC251 - a process that has no CPU
            await side.until(lambda number=number: len(side.came_ns) == number)  # type: ignore[misc]
        side.end()
        assert side.data == b"hello" * 5
        return [came - sent for came, sent in zip(side.came_ns, sent_ns, strict=True)]

    late_ns = uvloop.run(scene())
    if sys.platform == "linux":
        assert min(late_ns) < 20_000_000  # the first of the five may not have been stamped yet
    else:
        assert min(late_ns) >= 30_000_000


def test_what_the_kernel_does_not_take_at_once_is_sent_in_its_order() -> None:
    async def scene() -> None:
        side = Side()
        pieces = [bytes([number]) * 3_000_000 for number in range(4)]
        for piece in pieces:
            side.stamped.write(piece)
        expected = b"".join(pieces)
        side.other.settimeout(10)

        def read() -> bytes:
            data = bytearray()
            while len(data) < len(expected):
                data += side.other.recv(1 << 20)
            return bytes(data)

        assert await asyncio.to_thread(read) == expected
        side.end()

    uvloop.run(scene())


def test_the_loss_of_a_connection_is_told_once_whoever_ended_it() -> None:
    async def scene() -> None:
        for end in ("other", "own", "reset"):
            side = Side()
            if end == "other":
                side.other.close()
            else:
                side.stamped.close(reset=end == "reset")
            await side.until(lambda side=side: side.losses > 0)  # type: ignore[misc]
            side.stamped.close()
            side.stamped.write(b"to nobody")
            await asyncio.sleep(0)
            assert side.losses == 1
            side.other.close()

    uvloop.run(scene())


def test_what_was_written_before_the_close_is_sent() -> None:
    async def scene() -> None:
        side = Side()
        side.stamped.write(b"x" * 12_000_000)
        side.stamped.write(b"end")
        side.stamped.close()
        side.stamped.write(b"too late")
        side.other.settimeout(10)

        def read() -> bytes:
            data = bytearray()
            while piece := side.other.recv(1 << 20):
                data += piece
            return bytes(data)

        assert await asyncio.to_thread(read) == b"x" * 12_000_000 + b"end"
        await side.until(lambda: side.losses == 1)
        side.end()

    uvloop.run(scene())


def test_who_fails_at_what_came_loses_the_connection() -> None:
    async def scene() -> list[str]:
        side = Side()
        told: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        side.came_ns = cast("list[int]", None)  # as if the owner had a fault
        side.other.sendall(b"hello")
        await side.until(lambda: side.losses == 1)
        side.end()
        return told

    assert uvloop.run(scene()) == ["'NoneType' object has no attribute 'append'"]
