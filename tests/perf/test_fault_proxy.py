from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest

from perf.load import fault_proxy
from perf.load.fault_proxy import NO_FAULTS, FaultProxy, Faults, LineFaults

BIG = bytes(range(256)) * 4_000


@asynccontextmanager
async def echo_behind_a_proxy(faults: Faults = NO_FAULTS) -> AsyncIterator[FaultProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.start()
    proxy.faults = faults
    try:
        yield proxy
    finally:
        await proxy.close()
        server.close()


def run(work: Callable[[FaultProxy], Awaitable[None]], faults: Faults = NO_FAULTS) -> None:
    async def whole() -> None:
        async with echo_behind_a_proxy(faults) as proxy, asyncio.timeout(20):
            await work(proxy)

    asyncio.run(whole())


async def connected(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(proxy: FaultProxy, data: bytes) -> bytes:
    """Return all that comes back of what is sent on a connection of its own."""
    reader, writer = await connected(proxy)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "line",
    [
        LineFaults(),
        LineFaults(latency_ms=5, jitter_ms=5),
        LineFaults(slice_bytes=7_000),
        LineFaults(bytes_per_s=2e7),
        LineFaults(stall_share=0.1, stall_ms=10),
    ],
)
def test_all_bytes_pass_in_order_whatever_slows_them(line: LineFaults) -> None:
    async def work(proxy: FaultProxy) -> None:
        for found in await asyncio.gather(*[echoed(proxy, BIG) for _ in range(3)]):
            assert found == BIG

    run(work, Faults(line, line))


def test_pieces_are_as_small_as_was_asked_for() -> None:
    async def work(proxy: FaultProxy) -> None:
        reader, writer = await connected(proxy)
        writer.write(b"0123456789")
        sizes: list[int] = []
        while sum(sizes) < 10:
            sizes.append(len(await reader.read(100)))
        assert len(sizes) > 1
        writer.close()

    run(work, Faults(down=LineFaults(slice_bytes=2, bytes_per_s=200)))


def test_bytes_are_as_late_and_as_slow_as_was_asked_for() -> None:
    async def work(proxy: FaultProxy) -> None:
        began_s = time.monotonic()
        await echoed(proxy, b"late")
        assert time.monotonic() - began_s >= 0.08
        proxy.faults = Faults(down=LineFaults(bytes_per_s=100_000))
        began_s = time.monotonic()
        await echoed(proxy, bytes(20_000))
        assert time.monotonic() - began_s >= 0.15

    run(work, Faults(LineFaults(latency_ms=40), LineFaults(latency_ms=40)))


def test_a_connection_is_reset() -> None:
    async def work(proxy: FaultProxy) -> None:
        with pytest.raises(ConnectionResetError):
            await echoed(proxy, b"x")
        assert proxy.counts["resets"] == 1

    run(work, Faults(LineFaults(reset_share=1.0)))


def test_a_connection_ends_after_so_many_bytes() -> None:
    async def work(proxy: FaultProxy) -> None:
        reader, writer = await connected(proxy)
        writer.write(BIG)
        found = b""
        with suppress(ConnectionResetError):  # what was sent after the cut may be answered with a reset
            while data := await reader.read(1 << 16):
                found += data
        writer.transport.abort()
        assert BIG[:1_000].startswith(found)
        assert proxy.counts["cut"] == 1

    run(work, Faults(down=LineFaults(limit_bytes=1_000)))


def test_new_connections_are_refused() -> None:
    async def work(proxy: FaultProxy) -> None:
        with pytest.raises(ConnectionResetError):
            await echoed(proxy, b"x")
        proxy.faults = NO_FAULTS
        assert await echoed(proxy, b"x") == b"x"

    run(work, Faults(refuse=True))


def test_what_was_held_passes_afterwards_and_what_was_swallowed_does_not() -> None:
    async def work(proxy: FaultProxy) -> None:
        reader, writer = await connected(proxy)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.faults = Faults(hold=True)
        writer.write(b"held")
        late = asyncio.create_task(echoed(proxy, b"new"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reader.read(1)), 0.1)
        assert not late.done()
        proxy.faults = NO_FAULTS
        assert await late == b"new"
        proxy.faults = Faults(LineFaults(blackhole=True))
        writer.write(b"gone")
        while not proxy.counts["swallowed_bytes"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        proxy.faults = NO_FAULTS
        writer.write(b"gone, too")
        while proxy.counts["swallowed_bytes"] < 13:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await echoed(proxy, b"another connection") == b"another connection"
        writer.close()

    run(work)


def test_the_ends_own_end_is_handed_on() -> None:
    async def work(proxy: FaultProxy) -> None:
        reader, writer = await connected(proxy)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    run(work)


def test_faults_are_the_same_after_a_pipe_and_unknown_ones_are_refused() -> None:
    faults = Faults(LineFaults(latency_ms=1), LineFaults(limit_bytes=5), hold=True)
    assert Faults.from_json(faults.to_json()) == faults
    assert Faults.from_json({}) == NO_FAULTS
    with pytest.raises(ValueError, match=r"unknown faults: .*lag"):
        Faults.from_json({"lag": 1})
    with pytest.raises(ValueError, match=r"unknown faults of a line: .*lag"):
        Faults.from_json({"up": {"lag": 1}})


def test_a_proxy_of_its_own_process_is_switched_while_it_runs() -> None:
    with ExitStack() as stack:
        target = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(fault_proxy.running("127.0.0.1", target.getsockname()[1]))

        def connected_socket() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 10))

        def passed() -> bytes:
            connected_socket().sendall(b"x")
            return stack.enter_context(target.accept()[0]).recv(10)

        assert passed() == b"x"
        proxy.set(Faults(refuse=True))
        with pytest.raises(ConnectionResetError):
            connected_socket().recv(10)
        assert proxy.set(NO_FAULTS)["resets"] == 1
        assert passed() == b"x"
