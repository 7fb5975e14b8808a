from __future__ import annotations

import socket

import pytest

from perf.load import free_port as module
from perf.load.free_port import free_port


def test_no_port_is_given_twice_and_none_is_one_that_connections_get() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert max(ports) < 32_768  # where Linux begins, unless it is told otherwise


def test_a_port_on_which_somebody_listens_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(module, "_FIRST", taken)
        monkeypatch.setattr(module, "_END", taken + 1)
        module._given.discard(taken)
        with pytest.raises(OSError, match="expected a free port"):
            free_port()
    module._given.discard(taken)
    assert free_port() == taken
