"""What all connections of the stand-in DynamoDB share: its store, its latency law, counters and controls.

Knows no sockets.

Invariants:
1. Controls are carried out in one order: prepare, describe, faults, latency, reset; one that is refused
   leaves those before it done. An unknown name at the top changes nothing.
2. A plain read of prepared tables is answered by `PreparedAnswers` where its loop is compiled, unless faults
   are asked for.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from perf.load.described import DescribedTable
from perf.load.dynamo_error import DynamoError, unknown_operation, validation
from perf.load.faults import FaultPlan, Faults
from perf.load.histogram import Histogram
from perf.load.latency_law import DYNAMODB_MS, LatencyLaw
from perf.load.operations import Store
from perf.load.precise_timer import PreciseTimer
from perf.load.prepared_items import PreparedItems
from perf.load.tables import PreparedTable

if TYPE_CHECKING:
    import asyncio

    from perf.load.signature import SignatureCheck

_BATCH_GET_TARGET = "DynamoDB_20120810.BatchGetItem"


class Counters:
    """What went over the wire, for the harness to read."""

    def __init__(self) -> None:
        self.errors = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections = 0
        self.connections_total = 0
        self.connections_peak = 0


class StandIn:
    """What all connections share: the store, the law, the counters."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.store = Store()
        self.counters = Counters()
        self.law: LatencyLaw | None = None
        self.timer = PreciseTimer(loop)
        self.calls = Histogram()
        self.signatures: SignatureCheck | None = None
        self.tls_port: int | None = None

    def answer(self, target: str, body: bytes) -> tuple[int, bytes | bytearray]:
        """Give a request's status and body; a bytearray begins with `HEAD_ROOM_BYTES` for its head."""
        store = self.store
        if target == _BATCH_GET_TARGET and not store.faults.active:
            prepared = store.prepared.answer(body)
            if prepared is not None:
                return 200, prepared
        try:
            _, dot, operation = target.partition(".")
            if not dot:
                raise unknown_operation(target)
            return 200, store.perform(operation, body)
        except DynamoError as error:
            self.counters.errors += 1
            return error.status, error.error_body()

    def control(self, wanted: dict[str, Any]) -> None:
        """Change tables, faults and latency as the harness asks.

        Raises:
            DynamoError: an unknown name.
            AttributeError, KeyError, TypeError, ValueError: a field is missing or of another form.
        """
        unknown = set(wanted) - {"describe", "faults", "latency_ms", "prepare", "reset"}
        if unknown:
            raise validation(f"unknown controls: {sorted(unknown)}")
        for table in wanted.get("prepare", ()):
            name = table["table"]
            self.store.prepared.remove(name)
            if "items" in table:
                self.store.tables[name] = PreparedItems(name, table["key"], table["items"])
                self.store.whole_items.add(name)
            else:
                prepared = self.store.tables[name] = PreparedTable(name, table["rows"])
                self.store.prepared.add(name, prepared.tails)
        for table in wanted.get("describe", ()):
            name, header = table["table"], bytes.fromhex(table["header"])
            self.store.prepared.remove(name)
            described = DescribedTable(name, table["number"], header, has_text=table["has_text"])
            self.store.tables[name] = described
        if "faults" in wanted:
            self.store.faults = Faults(FaultPlan.from_json(wanted["faults"]))
        if "latency_ms" in wanted:
            self.law = _law(wanted["latency_ms"])
        if wanted.get("reset"):
            self._reset()

    def _reset(self) -> None:
        connections = self.counters.connections
        self.counters = Counters()
        self.counters.connections = connections
        self.calls = Histogram()
        store = self.store
        store.calls.clear()
        store.prepared.reset()
        for table in store.tables.values():
            table.keys_read = 0
        store.keys = store.absent_keys = store.unprocessed_keys = store.write_units = 0

    def note_call(self, received_s: float) -> None:
        """Keep how long a delayed call took."""
        self.calls.record(int((time.monotonic() - received_s) * 1e9))

    def state(self) -> dict[str, Any]:
        """Give the counters."""
        counters, store = self.counters, self.store
        prepared = store.prepared
        keys_read = {name: table.keys_read + prepared.keys_of(name) for name, table in store.tables.items()}
        return {
            "calls": dict(store.calls + Counter({"BatchGetItem": prepared.calls})),
            "keys": store.keys + prepared.keys,
            "keys_by_table": {name: keys for name, keys in keys_read.items() if keys},
            "absent_keys": store.absent_keys + prepared.absent_keys,
            "unprocessed_keys": store.unprocessed_keys,
            "write_units": store.write_units,
            "errors": counters.errors,
            "bytes_in": counters.bytes_in,
            "bytes_out": counters.bytes_out,
            "connections": counters.connections,
            "connections_total": counters.connections_total,
            "connections_peak": counters.connections_peak,
            "tls_port": self.tls_port,
            "call_ms": self.calls.summary_ms(),
            "call_buckets_ms": self.calls.buckets_ms(),
        }


def _law(wanted: dict[str, float] | str | None) -> LatencyLaw | None:
    if wanted is None:
        return None
    if wanted == "dynamodb":
        return LatencyLaw(DYNAMODB_MS)
    if isinstance(wanted, str):
        raise validation(f"unknown latency law: {wanted[:64]}")
    return LatencyLaw({float(percent): ms for percent, ms in wanted.items()})
