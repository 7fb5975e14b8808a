"""What a rate of requests needs: cores, machines, connections, read units, bytes. An estimate throughout.

It knows the plan's figures (`explain`) and CPU times that somebody measured; it measures nothing and looks at
no store. What no plan tells is an assumption, a field of `Assumptions`, which the text and the JSON repeat.

The CPU of a request, where no measurement of the very service is given, follows a line through eight measured
services, look-ups and window sums in 1 to 50 views (`CPU_SOURCE`), and is a tenth off at worst. The
work of on-demand code isn't in it.

Invariants
1. A capacity is a function of its arguments.
2. Nothing is rounded in favour of fewer machines, and no key is taken to be shared between requests.
3. Requests in flight follow Little's law: rate times time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastserve.plan.explain import KEYS_PER_CALL, Explanation

# Microseconds of one worker's CPU: for a request, each key, each number of the answer, each 8 bytes of a row.
CPU_US_PER_REQUEST = 27.0
CPU_US_PER_KEY = 2.8
CPU_US_PER_OUTPUT = 0.01
CPU_US_PER_ROW_WORD = 0.0153
CPU_SOURCE = (
    "line through perf/results/busy-1.json and busy-2.json: 2 shared CPUs of an AMD EPYC, Python 3.11"
)

# On the wire: base64 and what stands around an item; around an answer's values, and these as JSON. From the
# same files; an HTTP head is a guess.
WIRE_BYTES_PER_KEY = 50
ANSWER_FRAME_BYTES = 26
VALUE_BYTES = {"float64": 18.4, "float32": 11.0, "int64": 12.0, "boolean": 5.0}
OTHER_VALUE_BYTES = 28.0
HTTP_HEAD_BYTES = 150

# Redis: rows as they are and a few bytes of its protocol around each; a worker's calls follow each other over
# one connection to each server. Its share of the line's CPU: docs/decisions/0008-redis-hot-side.md.
REDIS_BYTES_PER_KEY = 10
REDIS_KEYS_PER_CALL = 500
REDIS_CALL_MEAN_MS, REDIS_CALL_P99_MS = 1.0, 5.0
REDIS_SOURCE = "on Redis 0.6 to 0.8 of that line, which is of DynamoDB's wire (decision 0008)"

# DynamoDB's list price, us-east-1: a capacity unit reads each second what a request unit reads once.
PRICE_PER_CAPACITY_UNIT_HOUR_USD = 0.00013
TABLE_QUOTA_UNITS_PER_S = 40_000
SECONDS_PER_MONTH = 730 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What isn't known, and is taken to be so.

    ``utilization`` is how busy workers may be at the rate; ``store_tls_share`` what TLS to the store adds to
    the CPU; ``call_mean_ms`` and ``call_p99_ms`` a store call's time; ``zones`` how many hold the machines,
    one of which may fail; ``mean_share`` the month's mean rate as a part of the rate that was asked.
    """

    utilization: float = 0.6
    store_tls_share: float = 0.25
    call_mean_ms: float = 4.5
    call_p99_ms: float = 22.0
    machine_cpus: int = 8
    zones: int = 3
    mean_share: float = 1.0
    worker_mib: int = 128
    store_connections: int = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """What one request of a service cost where it was measured; bytes are None where they weren't."""

    cpu_us: float
    source: str
    store_bytes: float | None = None
    answer_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """One service at one rate; bytes (without the HTTP head), keys and units are those of a request.

    ``table_units`` are the tables that it reads, each with the read units that it takes there. Stores that
    charge nothing have none: ``priced`` is whether any other is read, ``unpriced`` whether such a one is.
    ``reads_consistently`` is whether any priced read is a consistent one, as of tables that are pushed to.
    """

    service: str
    qps: float
    cpu_us: float
    cpu_source: str
    keys: int
    calls: int
    read_units: float
    store_bytes: float
    answer_bytes: float
    runs_code: bool
    table_units: tuple[tuple[str, float], ...]
    priced: bool = True
    unpriced: bool = False
    reads_consistently: bool = False

    @property
    def of_redis_alone(self) -> bool:
        """Whether all that it reads lies in Redis."""
        return self.unpriced and not self.priced


@dataclass(frozen=True, slots=True)
class Capacity:
    """What services together need."""

    loads: tuple[ServiceLoad, ...]
    assumed: Assumptions
    price_per_million_read_units_usd: float

    @property
    def is_priced(self) -> bool:
        """Whether any of the reads has a price."""
        return any(load.priced for load in self.loads)

    @property
    def of_redis_alone(self) -> bool:
        """Whether all that is read lies in Redis."""
        return all(load.of_redis_alone for load in self.loads)

    @property
    def qps(self) -> float:
        """Requests per second."""
        return sum(load.qps for load in self.loads)

    @property
    def busy_cores(self) -> float:
        """Cores that work all the time at the rate."""
        cpu_us = sum(load.qps * load.cpu_us for load in self.loads)
        return cpu_us * (1 + self.assumed.store_tls_share) / 1e6

    @property
    def workers(self) -> int:
        """Workers, each with a core of its own, that are as busy as they may be."""
        return max(1, math.ceil(round(self.busy_cores / self.assumed.utilization, 9)))

    @property
    def machines(self) -> int:
        """Machines, evenly over the zones, so that without any one zone there are enough workers."""
        enough = math.ceil(self.workers / self.assumed.machine_cpus)
        if self.assumed.zones == 1:
            return enough
        return math.ceil(enough / (self.assumed.zones - 1)) * self.assumed.zones

    @property
    def memory_mib_per_machine(self) -> int:
        """Memory of a machine's workers and their arbiter."""
        return (self.assumed.machine_cpus + 1) * self.assumed.worker_mib

    def in_flight(self, call_ms: float) -> float:
        """Return how many requests are under way while a store call takes this long."""
        return sum(load.qps * (call_ms / 1e3 + load.cpu_us / 1e6) for load in self.loads)

    @property
    def keys_per_s(self) -> float:
        """Store keys per second."""
        return sum(load.qps * load.keys for load in self.loads)

    @property
    def calls_per_s(self) -> tuple[float, float]:
        """Store calls per second: if all were full, and if no two requests shared one."""
        keys_per_call = REDIS_KEYS_PER_CALL if self.of_redis_alone else KEYS_PER_CALL
        return self.keys_per_s / keys_per_call, sum(load.qps * load.calls for load in self.loads)

    @property
    def store_connections_per_worker(self) -> int:
        """Connections that one worker's calls keep busy if no two requests share one and calls are slow.

        Of Redis: to each server.
        """
        if self.of_redis_alone:
            return 1
        return math.ceil(self.calls_per_s[1] / self.workers * self.assumed.call_p99_ms / 1e3)

    @property
    def read_units_per_s(self) -> float:
        """Read request units per second."""
        return sum(load.qps * load.read_units for load in self.loads)

    @property
    def on_demand_usd_per_month(self) -> float:
        """Price of a month's reads, paid by request."""
        units = self.read_units_per_s * SECONDS_PER_MONTH * self.assumed.mean_share
        return units / 1e6 * self.price_per_million_read_units_usd

    @property
    def provisioned_usd_per_month(self) -> float:
        """Price of capacity provisioned for the whole rate the whole month, without reservation."""
        return self.read_units_per_s * SECONDS_PER_MONTH / 3600 * PRICE_PER_CAPACITY_UNIT_HOUR_USD

    @property
    def busiest_table(self) -> tuple[str, float]:
        """The table that is read most, and its read units per second; ("", 0) without tables."""
        units: dict[str, float] = {}
        for load in self.loads:
            for table, read_units in load.table_units:
                units[table] = units.get(table, 0.0) + load.qps * read_units
        return max(units.items(), key=lambda item: item[1], default=("", 0.0))

    @property
    def store_bytes_per_s(self) -> float:
        """Bytes that come from the store each second."""
        return sum(load.qps * load.store_bytes for load in self.loads)

    @property
    def answer_bytes_per_s(self) -> float:
        """Bytes that go to clients each second."""
        return sum(load.qps * (load.answer_bytes + HTTP_HEAD_BYTES) for load in self.loads)

    def to_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        low, high = self.calls_per_s
        table, units = self.busiest_table
        return {
            "estimate": True,
            "services": [asdict(load) for load in self.loads],
            "qps": self.qps,
            "busy_cores": self.busy_cores,
            "workers": self.workers,
            "machines": self.machines,
            "memory_mib_per_machine": self.memory_mib_per_machine,
            "in_flight": self.in_flight(self.assumed.call_mean_ms),
            "in_flight_at_p99": self.in_flight(self.assumed.call_p99_ms),
            "keys_per_s": self.keys_per_s,
            "calls_per_s_at_least": low,
            "calls_per_s_at_most": high,
            "store_connections_per_worker": self.store_connections_per_worker,
            "read_units_per_s": self.read_units_per_s,
            "busiest_table": {"table": table, "read_units_per_s": units},
            "on_demand_usd_per_month": self.on_demand_usd_per_month,
            "provisioned_usd_per_month": self.provisioned_usd_per_month,
            "store_bytes_per_s": self.store_bytes_per_s,
            "answer_bytes_per_s": self.answer_bytes_per_s,
            "assumed": asdict(self.assumed),
        }


def service_load(explanation: Explanation, qps: float, measured: Measured | None = None) -> ServiceLoad:
    """Return what one service's requests cost, measured where it was, else estimated."""
    known = measured or Measured(estimated_cpu_us(explanation), CPU_SOURCE)
    return ServiceLoad(
        service=explanation.service,
        qps=qps,
        cpu_us=known.cpu_us,
        cpu_source=known.source,
        keys=explanation.keys,
        calls=explanation.calls,
        read_units=explanation.read_units,
        store_bytes=_wire_bytes(explanation) if known.store_bytes is None else known.store_bytes,
        answer_bytes=_answer_bytes(explanation) if known.answer_bytes is None else known.answer_bytes,
        runs_code=bool(explanation.computed) and measured is None,
        table_units=(
            *((row.table, row.read_units) for row in explanation.rows if row.bundle is None),
            *((cost.table, cost.read_units) for cost in explanation.items if cost.table is not None),
            *((cost.table, cost.read_units) for cost in explanation.streams if cost.keys),
        ),
        priced=explanation.is_priced,
        unpriced=bool(explanation.unpriced_stores),
        reads_consistently=explanation.reads_consistently,
    )


def capacity(
    loads: Sequence[ServiceLoad], price_per_million_read_units_usd: float, assumed: Assumptions
) -> Capacity:
    """Return what services need together, on machines that all of them share."""
    return Capacity(tuple(loads), assumed, price_per_million_read_units_usd)


def usual_assumptions(loads: Sequence[ServiceLoad], **given: float) -> Assumptions:
    """Return what is taken to be so where nothing else is given: Redis is nearer than DynamoDB."""
    if all(load.of_redis_alone for load in loads):
        given = {"call_mean_ms": REDIS_CALL_MEAN_MS, "call_p99_ms": REDIS_CALL_P99_MS, **given}
    return Assumptions(**given)  # type: ignore[arg-type]  # counts are among them


def estimated_cpu_us(explanation: Explanation) -> float:
    """Return the CPU of one request by the line."""
    return (
        CPU_US_PER_REQUEST
        + CPU_US_PER_KEY * explanation.keys
        + CPU_US_PER_OUTPUT * len(explanation.outputs)
        + CPU_US_PER_ROW_WORD * explanation.row_bytes / 8
    )


def _wire_bytes(explanation: Explanation) -> float:
    if explanation.unpriced_stores and not explanation.is_priced:
        return explanation.item_bytes + explanation.keys * REDIS_BYTES_PER_KEY
    return explanation.item_bytes * 4 / 3 + explanation.keys * WIRE_BYTES_PER_KEY


def _answer_bytes(explanation: Explanation) -> float:
    values = sum(VALUE_BYTES.get(output.dtype, OTHER_VALUE_BYTES) for output in explanation.outputs)
    return ANSWER_FRAME_BYTES + values
