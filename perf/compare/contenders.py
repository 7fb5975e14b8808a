"""Who is measured beside fastserve, over which shapes, and with how much load each gets through its turn.

Starts processes; knows nothing of figures.

Invariants:
1. Each answers the same look-ups of the same stand-in; what is under TLS says so.
2. Whoever takes a hundred times as long gets a longer turn and fewer clients, or it would answer nothing in
   it: CPU per request is what is compared, and an answer begun before the turn counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from perf import server
from perf.compare.fastapi import server as fastapi
from perf.compare.feast import lookups as feast
from perf.data import SHAPES, answer_bytes, prepare_service, request_stream, service_plan
from perf.load.child import module_process
from perf.run import bare_arguments

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator, Sequence

    from perf.load.load_plan import Stream
    from perf.load.standin_client import StandInAddress

SERVICES = ("lookups_1x10", "lookups_5x100", "lookups_50x100")
FASTSERVE, TLS, FLOOR, SDK, FASTAPI, FEAST = "fastserve", "fastserve_tls", "floor", "sdk", "fastapi", "feast"
NAMES = {
    FASTSERVE: "fastserve",
    TLS: "fastserve, TLS to the store",
    FLOOR: "floor: the bytes alone",
    SDK: "bare server + aiobotocore",
    FASTAPI: "FastAPI + aiobotocore",
    FEAST: "Feast + DynamoDB",
}
# Feast's turn by service: seconds in proportion, and clients.
FEAST_TURNS = {
    "lookups_1x10": (1.5, 16),
    "lookups_5x100": (2.5, 4),
    "lookups_10x100": (2.5, 4),
    "lookups_50x100": (6.0, 2),
}
_CLIENTS = 16


@dataclass(frozen=True)
class Contender:
    """One process, the service that it is asked for, and its turn."""

    kind: str
    service: str
    pid: int
    port: int
    turn: float = 1.0
    clients: int = _CLIENTS

    def stream(self, **load: Any) -> Stream:
        """Make its load."""
        load["connections"] = self.clients
        if self.kind == FEAST:
            return feast.request_stream(self.service, **load)
        if self.kind in {SDK, FASTAPI}:
            load["verify_every"] = 25
        made = request_stream(self.service, **load)
        return replace(made, verify=None) if self.kind == FLOOR else made


def start(
    stand_in: StandInAddress, services: Sequence[str], kinds: Sequence[str], stack: contextlib.ExitStack
) -> Iterator[Contender]:
    """Start what is to be compared.

    Raises:
        ChildError: a process did not come up, or an environment can't be made.
    """
    for service in services:
        prepare_service(stand_in, service)
    (repo,) = {SHAPES[service].repo_path for service in services}
    # One process answers all services where it can.
    runnings = {
        FASTSERVE: lambda: server.running(repo, stand_in.store_url()),
        TLS: lambda: server.running(repo, stand_in.store_url(tls=True), ca_bundle=stand_in.ca_bundle),
        FASTAPI: lambda: fastapi.running(services, stand_in.endpoint),
        FEAST: lambda: feast.running(services, stand_in),
    }
    for kind in kinds:
        place = stack.enter_context(runnings[kind]()) if kind in runnings else None
        for service in services:
            pid, port = place or stack.enter_context(_own_process(kind, service, stand_in))
            turn, clients = FEAST_TURNS[service] if kind == FEAST else (1.0, _CLIENTS)
            yield Contender(kind, service, pid, port, turn, clients)


def _own_process(
    kind: str, service: str, stand_in: StandInAddress
) -> contextlib.AbstractContextManager[tuple[int, int]]:
    if kind == SDK:
        return module_process("perf.compare.sdk_server", bare_arguments(service, stand_in.port))
    tables = ",".join(place.view.table for place in service_plan(service).places)
    store = ["--store-port", str(stand_in.port), "--tables", tables]
    return module_process("perf.floor", ["--answer-bytes", str(answer_bytes(service)), *store])
