"""Ports for servers that have to be told theirs: nothing listens there, nor is likely to before they do.

A server that can say which port it took is to be started with port 0 instead.

Invariants:
1. No port is given twice by one process.
2. None is one that Linux gives by itself, to connections or to who binds to port 0: between the look and the
   server's start there is time for thousands of either (`ip_local_port_range` begins at 32,768).
"""

from __future__ import annotations

import random
import socket

_FIRST, _END = 15_000, 32_000
_TRIES = 100
_given: set[int] = set()
# Not the module's own generator: hypothesis seeds that alike in all of pytest's processes.
_random = random.SystemRandom()


def free_port() -> int:
    """Find a port of 127.0.0.1 that nothing listens on.

    Raises:
        OSError: there is none.
    """
    for _ in range(_TRIES):
        port = _random.randrange(_FIRST, _END)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"expected a free port from {_FIRST} to {_END}, found none in {_TRIES} tries")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
