"""A server with a tiny application whose paths misbehave on purpose; run as a process by `server_process`.

`/echo` gives the body back, `/pid` the worker's process, `/ready` whether it is ready, `/later?MS` answers
after a while, `/busy?MS` blocks the loop for it, `/hang` blocks it for ever, `/die` ends the process,
`/hoard?MIB` keeps so much memory for good.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from fastserve.errors import DefinitionError, StoreError
from fastserve.server.arbiter import run
from fastserve.server.exchange import Exchange
from fastserve.server.generation import Definitions
from fastserve.server.options import ServerOptions
from fastserve.server.tls import make_tls_context
from fastserve.server.worker import WorkerContext


class Echo:
    """The application in one worker."""

    def __init__(self, context: WorkerContext, boot: str, version: str) -> None:
        self._version = version
        self._context = context
        self._boot = boot
        self._hoard: list[bytearray] = []

    async def start(self) -> None:
        if self._boot == "fails":
            raise StoreError("the store is unreachable")
        if self._boot == "crashes":
            raise ZeroDivisionError
        if self._boot == "dies":
            os._exit(7)
        if self._boot == "hangs":
            await asyncio.sleep(3600)
        if self._boot == "waits":
            told = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
            sys.stderr.write("waiting\n")
            sys.stderr.flush()
            await told.wait()
        if self._boot.startswith("/") and is_there(self._boot):
            raise StoreError("the file is there")

    def admin(self, exchange: Exchange) -> None:
        exchange.respond(200, json.dumps(self._context.state.totals()).encode())

    async def stop(self) -> None:
        sys.stderr.write(f"stopped {os.getpid()}\n")
        sys.stderr.flush()

    def application(self, exchange: Exchange) -> None:
        delay_s = int(exchange.query or 0) / 1000
        match exchange.path:
            case "/echo":
                exchange.respond(200, exchange.body)
            case "/pid":
                exchange.respond(200, b"%d" % os.getpid())
            case "/version":
                exchange.respond(200, self._version.encode())
            case "/ready":
                is_ready = self._context.state.is_ready
                exchange.respond(200 if is_ready else 503, json.dumps(self._context.state.totals()).encode())
            case "/later":
                asyncio.get_running_loop().call_later(delay_s, exchange.respond, 200, b"later")
            case "/busy":
                time.sleep(delay_s)
                exchange.respond(200, b"%d" % os.getpid())
            case "/hang":
                sys.stderr.write("hanging\n")
                sys.stderr.flush()
                time.sleep(3600)
            case "/hoard":
                self._hoard.append(bytearray(b"\1") * (int(exchange.query) << 20))
                exchange.respond(200, b"%d" % os.getpid())
            case "/die":
                os._exit(9)
            case _:
                exchange.respond_error(404, "no such path")


def is_there(path: str) -> bool:
    return Path(path).exists()


def main() -> int:
    settings = json.loads(sys.argv[1])
    boot = settings.pop("boot", "")
    file = settings.pop("version_file", "")
    tls = settings.pop("tls", [])
    options = ServerOptions(**{"port": 0, **settings})
    context = make_tls_context(*tls) if tls else None
    first = Definitions(options, lambda context: Echo(context, boot, read_version(file)), None, context)
    return run(first, (lambda: reloaded(options, file, tls)) if file or tls else None)


def read_version(file: str) -> str:
    return Path(file).read_text() if file else ""


def reloaded(options: ServerOptions, file: str, tls: list[str]) -> Definitions:
    """Read the version anew, as a reload reads definitions."""
    version = read_version(file)
    if version == "broken":
        raise DefinitionError("this version is broken")
    if version == "hangs":
        time.sleep(3600)
    if version == "once":  # in the child that tries a reload, and never again
        Path(file).write_text("never")
    if version == "never":
        raise KeyboardInterrupt
    boot = "fails" if version == "fails" else ""
    return Definitions(
        options,
        lambda context: Echo(context, boot, version),
        tls=make_tls_context(*tls) if tls else None,
    )


if __name__ == "__main__":
    sys.exit(main())
