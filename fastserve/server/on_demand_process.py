"""The processes that run isolated on-demand views: a nursery that forks helpers, and the helpers.

A worker forks its nursery before it has a loop, a thread or a connection, and asks it for helpers as long as
it lives: they share the definitions that the server loaded, whatever has become of the files since, and start
in milliseconds. A helper takes one call at a time through a socket of its own.

Invariants
1. The nursery kills only children that it hasn't reaped: no process that got a pid anew.
2. When the worker has gone (its end of the control socket is closed) nursery and helpers end, also a helper
   that is stuck: the nursery kills it, and should the nursery have died, its own alarm does.
3. What a helper sends are lists, numbers and texts: checked values, or how a call failed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from time import perf_counter_ns
from typing import Any, Final, NoReturn

from fastserve.errors import InvariantError
from fastserve.sdk.on_demand import OnDemandFeatureView, RequestContext
from fastserve.serving.on_demand_call import ViewCall, compile_call, kind_of, said, text_of

FORK: Final = b"F"
KILL: Final = b"K"
ORDER: Final = Struct("<cq")
"""What a worker tells its nursery: fork a helper for the socket that comes along, or kill that pid's."""
FRAME: Final = Struct("<I")
"""The length in front of each pickled message between worker and helper."""
NICENESS: Final = 10
"""Of nursery and helpers: where CPUs are short, the worker's loop goes first.

Measured by `perf.blocking_view` on two CPUs, 16 helpers killed and forked a second: the p99 of other requests
is 2.8 ms, 4.3 without it, and 1.1 before and after."""
REAP_EVERY_S: Final = 1.0
ORPHAN_GRACE_S: Final = 2.0
"""So long after a call's time is over its helper ends itself, if nobody did."""
TRACE_CHARS_MAX: Final = 16_384
"""So much of the end of a traceback is sent to the worker, which has others to serve than who reads it."""

Views = Mapping[str, OnDemandFeatureView[..., Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it goes to a helper; ``alarm_s`` is when the helper is to end itself."""

    view: str
    lines: int | None
    sources: Any
    moment: datetime
    alarm_s: float


@dataclass(frozen=True, slots=True)
class Nursery:
    """A nursery as its worker has it."""

    pid: int
    control: socket.socket


def start_nursery(views: Views, foreign_fds: Iterable[int]) -> Nursery:
    """Fork a nursery for these views; ``foreign_fds`` are the server's, which it must not keep open."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _leave_after(lambda: _nurse(views, its, [ours.detach(), *foreign_fds]))
    its.close()
    return Nursery(pid, ours)


def _leave_after(work: Any) -> NoReturn:
    """Do the work and end the process, whatever happens: nothing may get back into the parent's frames."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - see above
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# --- the nursery


def _nurse(views: Views, control: socket.socket, foreign_fds: Iterable[int]) -> None:
    for fd in foreign_fds:
        os.close(fd)
    # A terminal, or a service manager, tells all processes to end: helpers end after their worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    calls = {name: call for name, view in views.items() if (call := compile_call(view)) is not None}
    children: set[int] = set()
    try:
        while True:
            readable, _, _ = select.select([control], [], [], REAP_EVERY_S)
            _reap(children)
            if not readable:
                continue
            order, fds, _, _ = socket.recv_fds(control, ORDER.size, 1)
            if not order:
                return
            command, pid = ORDER.unpack(order)
            if command == KILL and pid in children:
                os.kill(pid, signal.SIGKILL)
            elif command == FORK:
                _fork_helper(calls, control, fds[0], children)
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _reap(children: set[int]) -> None:
    for pid in list(children):
        if os.waitpid(pid, os.WNOHANG)[0]:
            children.discard(pid)


def _fork_helper(calls: Mapping[str, ViewCall], control: socket.socket, fd: int, children: set[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:  # the worker sees its socket end, and asks again after a while
        sys.stderr.write(f"no helper process for on-demand views: {error}\n")
    else:
        if pid == 0:
            control.close()
            _leave_after(lambda: _help(calls, socket.socket(fileno=fd)))
        children.add(pid)
    os.close(fd)


# --- a helper


def _help(calls: Mapping[str, ViewCall], connection: socket.socket) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    send(connection, os.getpid())
    while (call := receive(connection)) is not None:
        signal.setitimer(signal.ITIMER_REAL, call.alarm_s)
        answer = answer_to(calls[call.view], call)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        send(connection, answer)


Answer = tuple[list[Any] | None, tuple[str, str, str] | None, int]
"""A call's values, or its exception's class, text and traceback; and how long it took in nanoseconds."""


def answer_to(view_call: ViewCall, call: Call) -> Answer:
    """Run a call."""
    moment = RequestContext(call.moment)
    start_ns = perf_counter_ns()
    try:
        if call.lines is None:
            values = view_call.line_caller(moment)(*call.sources)
        else:
            values = view_call.batch_caller(moment)(call.lines, call.sources)
    except BaseException as error:  # noqa: BLE001 - the author's, whatever it is
        took_ns = perf_counter_ns() - start_ns
        return None, (kind_of(error), text_of(error), _trace_of(error)), took_ns
    return values, None, perf_counter_ns() - start_ns


def _trace_of(error: BaseException) -> str:
    return said(lambda: "".join(traceback.format_exception(error))[-TRACE_CHARS_MAX:], "no traceback")


def send(connection: socket.socket, message: Any) -> None:
    """Send a message whole."""
    connection.sendall(framed(message))


def framed(message: Any) -> bytes:
    """Return a message's bytes."""
    body = pickle.dumps(message, protocol=5)
    return FRAME.pack(len(body)) + body


def receive(connection: socket.socket) -> Call | None:
    """Wait for a call; None when there won't be any more."""
    head = _receive_exactly(connection, FRAME.size)
    if head is None:
        return None
    body = _receive_exactly(connection, FRAME.unpack(head)[0])
    call = None if body is None else pickle.loads(body)  # noqa: S301 - from our own worker
    if call is not None and not isinstance(call, Call):
        raise InvariantError(f"expected a call, got {type(call).__name__}")
    return call


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
