"""A connected socket on the loop that tells when what it reads had come.

The harness shares CPUs with what it measures: what has come may wait for a millisecond until its process
runs. Between machines of their own that wouldn't be, so it is nobody's latency. Linux stamps each segment as
it comes, and only `recvmsg` gives the stamp, so the socket is read here and not by the loop's transports.
Where there is no stamp (elsewhere, and for a moment after the first socket asked) what is read has just come.

Invariants:
1. ``on_data`` gets a read's length and the moment, on `time.monotonic_ns`, when its last segment had come,
   where the kernel stamped it.
2. ``on_lost`` is called once, a turn after the socket was closed from either side; ``on_data`` never after.
3. What is written leaves in its order, however much of it the kernel takes at once, also after `close`.
4. An ``on_data`` that raises ends the connection; the loop's handler is told.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# Linux's number, also of the message that brings the stamp; Python's socket has no name for it.
_SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("@qq")
_CONTROL_BYTES = socket.CMSG_SPACE(_STAMP.size)
_OLDEST_NS = 1_000_000_000


class StampedSocket:
    """Reads a socket into ``view``, which may be shared: it is looked at before the loop goes on."""

    __slots__ = ("_buffers", "_is_closing", "_loop", "_on_data", "_on_lost", "_socket", "_unsent")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        view: memoryview,
        on_data: Callable[[int, int], None],
        on_lost: Callable[[], None],
    ) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._loop = loop
        self._socket: socket.socket | None = connected
        self._buffers = [view]
        self._unsent: deque[memoryview] = deque()
        self._is_closing = False
        self._on_data = on_data
        self._on_lost = on_lost
        loop.add_reader(connected.fileno(), self._on_readable)

    def write(self, data: bytes | memoryview) -> None:
        """Send, now or as the other side reads."""
        if self._socket is None or self._is_closing:
            return
        is_first = not self._unsent
        self._unsent.append(memoryview(data))
        if is_first and self._flush():
            self._loop.add_writer(self._socket.fileno(), self._on_writable)

    def close(self, *, reset: bool = False) -> None:
        """Read no more and close once all is sent, or at once and with a reset."""
        if self._socket is None:
            return
        self._is_closing = True
        self._loop.remove_reader(self._socket.fileno())
        if self._unsent and not reset:
            return
        self._loop.remove_writer(self._socket.fileno())
        if reset:
            # Lingering for no time sends RST in place of FIN (socket(7)).
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._unsent.clear()
        self._socket.close()
        self._socket = None
        self._loop.call_soon(self._on_lost)

    def _flush(self) -> bool:
        """Send what the kernel takes; tell whether some is left and the socket still there."""
        assert self._socket is not None
        unsent = self._unsent
        while unsent:
            try:
                sent = self._socket.send(unsent[0])
            except BlockingIOError:
                return True
            except OSError:
                self.close(reset=True)
                return False
            if sent < len(unsent[0]):
                unsent[0] = unsent[0][sent:]
            else:
                unsent.popleft()
        return False

    def _on_writable(self) -> None:
        if self._socket is None or self._flush() or self._socket is None:
            return
        self._loop.remove_writer(self._socket.fileno())
        if self._is_closing:
            self.close()

    def _on_readable(self) -> None:
        if self._socket is None:
            return
        try:
            count, control, _, _ = self._socket.recvmsg_into(self._buffers, _CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close(reset=True)
            return
        if not count:
            self.close()
            return
        age_ns = 0
        if control:
            seconds, nanoseconds = _STAMP.unpack(control[0][2])
            # By the age, for the two clocks have no fixed distance. The stamps' first, lest a pause between
            # the two readings make it older; and no longer than any pause, for that clock may be set.
            age_ns = min(max(0, time.time_ns() - seconds * 1_000_000_000 - nanoseconds), _OLDEST_NS)
        came_ns = time.monotonic_ns() - age_ns
        try:
            self._on_data(count, came_ns)
        except BaseException:
            self.close(reset=True)
            raise
