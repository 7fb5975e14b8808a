"""A store whose values name their key, which answers when it is told to, in any order; no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fastserve.errors import StoreError
from fastserve.plan.service import WorkspacePlan
from fastserve.plan.views import ViewPlan
from fastserve.serving.coalescer import KeyRead
from fastserve.serving.transport import BASE64_ROWS, RowTransport
from tests.support.plans import AS_OF_NS, aggregate_row, attribute_row

Settle = Callable[[Sequence[KeyRead]], None]


def number_of(key: str) -> int:
    """Return a number that tells which key it is of."""
    return int.from_bytes(key.encode()[-6:], "big")


class FakeStore:
    """Rows for every key: texts hold the key, numbers `number_of` it. ``rows`` has exceptions and blocks."""

    def __init__(
        self, plan: WorkspacePlan, transport: RowTransport = BASE64_ROWS, max_keys: int = 100
    ) -> None:
        self.max_keys = max_keys
        self.transport = transport
        self.views = {view.table: view for view in plan.views.values()}
        self.rows: dict[tuple[str, str], Any] = {}
        self.failing: dict[str, StoreError] = {}
        self.batches: list[list[KeyRead]] = []
        self.open: list[KeyRead] = []
        self.settle: Settle

    def reader(self, settle: Settle) -> FakeStore:
        self.settle = settle
        return self

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        self.batches.append(list(reads))
        self.open += reads

    def fill(self, read: KeyRead) -> None:
        read.error = self.failing.get(read.key)
        if read.error is None:
            read.rows = [self.row(table, read.key) for table in read.group.tables]

    def row(self, table: str, key: str) -> Any:
        if (table, key) not in self.rows:
            if table not in self.views:
                return None  # a block that nobody has put there
            self.rows[table, key] = self.transport.wrap(own_row(self.views[table], key))
        return self.rows[table, key]

    def answer(self, *keys: str) -> None:
        """Settle what is open, or only these keys, in one go."""
        ready = [read for read in self.open if not keys or read.key in keys]
        self.open = [read for read in self.open if read not in ready]
        for read in ready:
            self.fill(read)
        self.settle(ready)

    def answer_some(self, chance: random.Random) -> None:
        """Settle a random part of what is open, in random order, cut into random pieces."""
        chance.shuffle(self.open)
        count = chance.randint(0, len(self.open))
        ready, self.open = self.open[:count], self.open[count:]
        while ready:
            piece = chance.randint(1, len(ready))
            part, ready = ready[:piece], ready[piece:]
            for read in part:
                self.fill(read)
            self.settle(part)
            if chance.random() < 0.2:
                self.settle(part)  # a store that settles twice


def own_row(view: ViewPlan, key: str, effective_ns: int = AS_OF_NS) -> bytes:
    """Return the row of ``key``: every value tells whose it is."""
    number = number_of(key)
    if view.schema is None:
        text = orjson.dumps(key)
        return attribute_row(view, {"a_int": number, "b_float": number / 2, "d_text": text}, effective_ns)
    slots: dict[int, list[float | int]] = {}
    for at, component in enumerate(view.schema.components):
        neutral: float | int = -0.0 if component.op.is_float else 0
        slots[at] = [neutral] * component.window.slots
        slots[at][-1] = number
    return aggregate_row(view, slots, effective_ns)
