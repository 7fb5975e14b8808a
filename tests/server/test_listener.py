"""The listening socket itself; how workers share its connections stands in `tests/process`."""

from __future__ import annotations

import errno
import select
import socket
from contextlib import closing

import pytest

from fastserve.server.listener import bind_listener, let_nobody_connect, listen
from fastserve.server.options import ServerOptions


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
