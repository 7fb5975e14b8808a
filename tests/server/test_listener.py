"""The listening socket itself; how workers share its connections stands in `tests/process`."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from contextlib import closing

import pytest

from fastserve.server import listener as listener_module
from fastserve.server.listener import HANDSHAKE_S, Acceptor, bind_listener, let_nobody_connect, listen
from fastserve.server.options import ServerOptions
from fastserve.server.shared_memory import SharedMemory


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_asks_in_the_last_moment_is_refused_and_who_was_before_is_taken(host: str) -> None:
    options = ServerOptions(host=host, port=0)
    with closing(bind_listener(options)) as listener:
        listen(listener, options)
        with (
            closing(socket.socket(listener.family)) as before,
            closing(socket.socket(listener.family)) as late,
        ):
            before.connect(listener.getsockname())
            let_nobody_connect(listener)
            late.setblocking(False)
            assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS

            accepted, _ = listener.accept()
            with closing(accepted), pytest.raises(BlockingIOError):
                listener.accept()
            assert not select.select([], [late], [], 0)[1]
            listener.close()

            assert select.select([], [late], [], 10)[1]
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_who_had_begun_to_connect_is_taken_after_the_first_look_into_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their last packet comes later; here they begin later, and nothing is dropped."""
    monkeypatch.setattr(listener_module, "let_nobody_connect", lambda _listener: None)
    options = ServerOptions(port=0)
    made: list[asyncio.Protocol] = []

    class Made(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            transport.close()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        listener = bind_listener(options)
        listen(listener, options)
        address = listener.getsockname()
        acceptor = Acceptor(loop, listener, Made, SharedMemory(1).workers, 0)
        acceptor.start()
        acceptor.close(takes_queued=True)
        is_waiting = acceptor.is_opening
        assert is_waiting
        with closing(socket.create_connection(address)):
            async with asyncio.timeout(20 * HANDSHAKE_S):
                while acceptor.is_opening:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(HANDSHAKE_S / 10)
        assert len(made) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    asyncio.run(work())
