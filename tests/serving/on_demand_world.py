"""An engine with on-demand views over a fake store, whose clocks stand, and whoever asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from fastserve.api.context import ContextReader
from fastserve.api.encode_on_demand import VectorEncoder
from fastserve.errors import RequestError
from fastserve.sdk.service import AnyView
from fastserve.serving.columns import Columns
from fastserve.serving.engine import Engine
from fastserve.serving.on_demand import Helpers, Surroundings
from fastserve.serving.on_demand_times import OnDemandTimes
from fastserve.serving.requests import VectorRequest
from fastserve.serving.transport import BASE64_ROWS, RowTransport
from tests.serving.fake_store import FakeStore
from tests.support.plans import NOW_NS, workspace_plan


class Asker:
    """Takes what an engine says about a request, and encodes it at once: a vector, or an error's text."""

    def __init__(self, encoder: VectorEncoder) -> None:
        self.encoder = encoder
        self.vectors: list[Any] = []
        self.late: list[Any] = []
        self.waits_s: list[float] = []
        self.told: list[str] = []

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        self.told.append(f"{last - first} lines")
        for line in range(first, last):
            try:
                self.vectors.append(orjson.loads(self.encoder.encode(columns, line)))
            except RequestError as error:
                self.vectors.append(f"{error.status} {error.message}")
        if columns.computed is not None:
            self.waits_s.append(columns.computed.wait_s)
            self.late += [columns.computed.late.get(line) for line in range(first, last)]

    def on_timeout(self) -> None:
        self.told.append("timeout")

    def on_failure(self, error: Exception) -> None:
        self.told.append(f"failure: {error!r}")


class OnDemandWorld:
    """One service ``s`` and whoever asks for its vectors; turns of the loop are taken by hand."""

    def __init__(
        self,
        features: Sequence[AnyView],
        transport: RowTransport = BASE64_ROWS,
        helpers: Helpers | None = None,
    ) -> None:
        self.plan = workspace_plan({"s": features})
        self.scheduled: list[Callable[[], None]] = []
        self.complaints: list[tuple[str, BaseException | str]] = []
        self.clock_ns = 0
        self.service = self.plan.services["s"]
        self.times = OnDemandTimes([view.name for view in self.service.on_demand])
        self.engine = Engine(
            self.plan,
            transport,
            schedule=self.scheduled.append,
            clock_ns=lambda: NOW_NS,
            surroundings=Surroundings(
                lambda: self.clock_ns,
                lambda view, error: self.complaints.append((view, error)),
                helpers,
                self.times,
            ),
        )
        self.store = FakeStore(self.plan, transport)
        self.engine.attach(self.store.reader)
        self.context = ContextReader(self.service.context_fields)

    def ask(
        self,
        *texts: Sequence[str],
        contexts: Sequence[Mapping[str, Any]] = (),
        budget: bool = False,
        partial: bool = False,
    ) -> Asker:
        """Submit a request of some lines, given by key texts, contexts or both."""
        runtime = self.engine.services["s"]
        asker = Asker(VectorEncoder(runtime.plan))
        values = [self.context.values(context) for context in contexts] or [[] for _ in texts]
        request = VectorRequest(
            runtime, asker, 2.0, zero_counts=False, budget=budget, partial=partial, contexts=values
        )
        self.engine.submit(request, texts or [[] for _ in contexts], 0.0)
        return asker

    def turn(self) -> None:
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for function in scheduled:
            function()

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        while self.scheduled or self.store.open:
            self.turn()
            self.store.answer()
