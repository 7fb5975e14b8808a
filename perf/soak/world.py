"""What a soak runs against: a stand-in store, a server by a clock that can be stepped, a proxy before each.

Clients connect to a proxy, that to the server; the server's store URL names another proxy, that the stand-in.

Invariants:
1. Nothing of it is left when the block ends, and the server has ended by SIGTERM with 0.
2. The tables of look-ups have every row that they are to have; those that are pushed to begin empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastserve.ingest.apply import execute, plan_apply
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import load_repo
from fastserve.store.url import open_store
from fastserve.tiles.layout import FORMAT
from perf import server
from perf.data import REPOS
from perf.load import fault_proxy, standin_client
from perf.load.child import ROOT, ChildError
from perf.load.fault_proxy import Faults
from perf.load.free_port import free_port
from perf.load.stepped_clock import SteppedClock
from perf.soak.vectors import NUMBER_TABLES, TEXT_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from perf.load.standin_client import StandInAddress

REPO = REPOS / "soak"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "perf", "AWS_SECRET_ACCESS_KEY": "perf"}
_SIGNATURE = ["--check-signature", "perf:perf"]
_STOP_WITHIN_S = 40.0


@dataclass(frozen=True)
class World:
    """All processes, as seen by who disturbs them."""

    stand_in: StandInAddress
    to_store: fault_proxy.ProxyProcess
    to_server: fault_proxy.ProxyProcess
    clock: SteppedClock
    server_pid: int
    server_port: int
    log: Path

    def disturb(
        self, stand_in: dict[str, object], to_store: Faults, to_server: Faults, clock_ahead_s: float
    ) -> None:
        """Set what goes wrong from now on. Blocking, for milliseconds."""
        self.stand_in.control(faults=stand_in)
        self.to_store.set(to_store)
        self.to_server.set(to_server)
        self.clock.step(clock_ahead_s)


@contextlib.contextmanager
def running(folder: Path, workers: int, flags: Sequence[str] = ()) -> Iterator[World]:
    """Run everything until the end of the block.

    Raises:
        ChildError: a process did not come up, or the server did not end as it should.
    """
    os.environ.update(_CREDENTIALS)
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(standin_client.running(_SIGNATURE))
        asyncio.run(_apply(stand_in.store_url()))
        describe_tables(stand_in)
        to_store = stack.enter_context(fault_proxy.running("127.0.0.1", stand_in.port))
        clock = SteppedClock(folder / "clock")
        port = free_port()
        url = f"dynamodb://local?endpoint=http://127.0.0.1:{to_store.port}"
        command = [
            *(sys.executable, "-m", "perf.load.stepped_clock", str(clock.path), "serve"),
            *("--repo", str(REPO), "--store", url, "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(workers), *flags),
        ]
        log = folder / "server.log"
        pid = stack.enter_context(_serving(command, port, log))
        to_server = stack.enter_context(fault_proxy.running("127.0.0.1", port))
        yield World(stand_in, to_store, to_server, clock, pid, port, log)


@contextlib.contextmanager
def _serving(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=server.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            try:
                server.await_ready(process, port, "/readyz")
            except ChildError as error:
                raise ChildError(f"{error}; it wrote:\n{log.read_text()[-2_000:]}") from None
            yield process.pid
            process.terminate()
            code = process.wait(_STOP_WITHIN_S)
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_WITHIN_S)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code:
        raise ChildError(f"the server ended with {code}; it wrote:\n{log.read_text()[-2_000:]}")


async def _apply(url: str) -> None:
    store = await open_store(url)
    try:
        await execute(await plan_apply(load_repo(REPO), store), store)
    finally:
        await store.close()


def describe_tables(stand_in: StandInAddress) -> None:
    """Have the stand-in answer the tables of look-ups with what describes itself."""
    plan = workspace_plan()
    names = [f"t{number:02d}" for number in range(NUMBER_TABLES)]
    names += [f"text{number}" for number in range(TEXT_TABLES)]
    tables = []
    for number, name in enumerate(names):
        view = plan.views[name]
        header = bytes([FORMAT, 0, 0, 0]) + view.layout.schema_id.to_bytes(4, "little")
        has_text = number >= NUMBER_TABLES
        tables.append({"table": view.table, "number": number, "header": header.hex(), "has_text": has_text})
    stand_in.control(describe=tables)


def workspace_plan() -> WorkspacePlan:
    """Compile the soak's repo."""
    return plan_workspace(load_repo(REPO))
