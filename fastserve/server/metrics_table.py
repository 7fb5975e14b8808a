"""Every metric that the server shows: name, kind, what it says, and the cells of shared memory it is made of.

It knows nothing of processes or of Prometheus's text. `docs/metrics.md` is made from this table.

Invariants
1. What has cells is the sum of them over all workers, alive or not, unless the metric says `live`: then only
   workers that live count. What has none is found out when somebody asks (`server.metrics_page`).
2. Labels are bounded: services, views, stores and statuses by what is defined, workers by their number.
3. Names follow Prometheus's conventions: base units, `_total` for what only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fastserve.serving.on_demand_times import Stat

LATENCY_BOUNDS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
LAG_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class ServiceCell(IntEnum):
    """What is counted of each feature service. From LATENCY on: a cell per bucket, and one above the last."""

    OK = 0
    CLIENT_ERRORS = 1
    SERVER_ERRORS = 2
    LATENCY_NS = 3
    EVALUATIONS = 4
    EVALUATED_NS = 5
    VECTORS = 6
    ROWS = 7
    MISSING = 8
    EXPIRED = 9
    UNREADABLE = 10
    TRANSCODED = 11
    LATENCY = 12


SERVICE_CELLS = ServiceCell.LATENCY + len(LATENCY_BOUNDS_S) + 1


class WorkerCell(IntEnum):
    """What is counted of each worker. From LAG on: a cell per bucket, and one above the last."""

    STARTS = 0
    ACCEPTED = 1
    ANSWERS_OK = 2
    ANSWERS_CLIENT_ERROR = 3
    ANSWERS_SERVER_ERROR = 4
    SHED = 5
    INGEST_REQUESTS = 6
    INGEST_RECORDS = 7
    INGEST_REFUSED = 8
    INGEST_WRITES = 9
    INGEST_CONFLICTS = 10
    INGEST_REPEATS = 11
    IN_FLIGHT = 12
    LAG_NS = 13
    CACHE_HITS = 14
    CACHE_MISSES = 15
    CACHE_STALE = 16
    CACHE_BYTES = 17
    SHEDDING = 18
    TRACES_SENT = 19
    TRACES_DROPPED = 20
    LAG = 21


WORKER_CELLS = WorkerCell.LAG + len(LAG_BOUNDS_S) + 1


class StoreCell(IntEnum):
    """What is counted of each store that views lie in."""

    CALLS = 0
    KEYS = 1
    JOINED = 2
    UNPROCESSED = 3
    RETRIES = 4
    THROTTLES = 5
    TIMEOUTS = 6
    FAILURES = 7
    HEDGES = 8
    HEDGES_WON = 9
    CIRCUIT_OPENED = 10
    KEYS_IN_FLIGHT = 11
    CIRCUITS_OPEN = 12
    CALLS_WAITING = 13


STORE_CELLS = len(StoreCell)


class ViewCell(IntEnum):
    """What is noted of each view: the last look at the registry, what it found; rows, and those missing."""

    LOOKED_NS = 0
    EFFECTIVE_NS = 1
    ROWS = 2
    MISSING = 3


VIEW_CELLS = len(ViewCell)


class Kind(StrEnum):
    """The kinds of Prometheus's text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Of(StrEnum):
    """Whose cells a metric is made of; the value is the label that tells them apart."""

    SERVER = ""
    SERVICE = "service"
    STORE = "store"
    ON_DEMAND = "view"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``cells`` are by the value of ``label``, a single one where there is no label.

    ``scale`` turns a cell's unit into the metric's. A histogram's cells are its first bucket and its sum.
    ``labels`` are those of a metric without cells.
    """

    name: str
    kind: Kind
    help: str
    of: Of = Of.SERVER
    cells: tuple[tuple[str, int], ...] = ()
    label: str = ""
    scale: float = 1
    bounds_s: tuple[float, ...] = ()
    live: bool = False
    labels: tuple[str, ...] = ()

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The names of the labels that its samples have."""
        return (*filter(None, (self.of.value, self.label)), *self.labels)


NS = 1e-9
_STATUSES = ("2xx", "4xx", "5xx")


def _counter(name: str, help_text: str, cell: int, of: Of = Of.SERVER, scale: float = 1) -> Metric:
    return Metric(name, Kind.COUNTER, help_text, of, (("", cell),), scale=scale)


def _gauge(name: str, help_text: str, cell: int, of: Of = Of.SERVER) -> Metric:
    return Metric(name, Kind.GAUGE, help_text, of, (("", cell),), live=True)


METRICS: tuple[Metric, ...] = (
    Metric(
        "fastserve_requests_total",
        Kind.COUNTER,
        "Requests for features that were answered, by service and class of status.",
        Of.SERVICE,
        tuple(
            zip(
                _STATUSES,
                (ServiceCell.OK, ServiceCell.CLIENT_ERRORS, ServiceCell.SERVER_ERRORS),
                strict=True,
            )
        ),
        "status",
    ),
    Metric(
        "fastserve_request_duration_seconds",
        Kind.HISTOGRAM,
        "Time from a request's last byte to its answer's hand-over to the kernel, whatever its status.",
        Of.SERVICE,
        (("", ServiceCell.LATENCY), ("sum", ServiceCell.LATENCY_NS)),
        scale=NS,
        bounds_s=LATENCY_BOUNDS_S,
    ),
    _counter(
        "fastserve_evaluations_total",
        "Times that rows were evaluated; the requests that became ready together share one.",
        ServiceCell.EVALUATIONS,
        Of.SERVICE,
    ),
    _counter(
        "fastserve_evaluation_seconds_total",
        "Time spent on making values out of rows, without on-demand views.",
        ServiceCell.EVALUATED_NS,
        Of.SERVICE,
        NS,
    ),
    _counter(
        "fastserve_vectors_total",
        "Feature vectors evaluated; a batch request has several.",
        ServiceCell.VECTORS,
        Of.SERVICE,
    ),
    _counter("fastserve_rows_total", "Rows that these vectors are made of.", ServiceCell.ROWS, Of.SERVICE),
    Metric(
        "fastserve_unusual_rows_total",
        Kind.COUNTER,
        "Rows among them that were missing (absent, or not read in time), expired, unreadable (their "
        "features are null or refused), or transcoded from an older schema.",
        Of.SERVICE,
        (
            ("missing", ServiceCell.MISSING),
            ("expired", ServiceCell.EXPIRED),
            ("unreadable", ServiceCell.UNREADABLE),
            ("transcoded", ServiceCell.TRANSCODED),
        ),
        "condition",
    ),
    _counter(
        "fastserve_on_demand_calls_total", "Calls of an on-demand view's code.", Stat.CALLS, Of.ON_DEMAND
    ),
    _counter(
        "fastserve_on_demand_vectors_total", "Vectors that it was called for.", Stat.LINES, Of.ON_DEMAND
    ),
    _counter(
        "fastserve_on_demand_seconds_total",
        "Time in its code and in the check of what it returned.",
        Stat.SUM_NS,
        Of.ON_DEMAND,
        NS,
    ),
    _counter(
        "fastserve_on_demand_failures_total",
        "Vectors for which it failed or returned what can't be a value.",
        Stat.FAILURES,
        Of.ON_DEMAND,
    ),
    Metric(
        "fastserve_view_age_seconds",
        Kind.GAUGE,
        "Age of a view's rows: time since the moment up to which it was materialized or compacted last.",
        labels=("view",),
    ),
    Metric(
        "fastserve_view_rows_total",
        Kind.COUNTER,
        "Rows of a view that vectors were made of, by whatever services.",
        labels=("view",),
    ),
    Metric(
        "fastserve_view_missing_rows_total",
        Kind.COUNTER,
        "Rows among them that were missing: absent, or not read in time.",
        labels=("view",),
    ),
    Metric(
        "fastserve_http_answers_total",
        Kind.COUNTER,
        "Answers on the listener for clients, whatever was asked, by class of status.",
        cells=tuple(
            zip(
                _STATUSES,
                (
                    WorkerCell.ANSWERS_OK,
                    WorkerCell.ANSWERS_CLIENT_ERROR,
                    WorkerCell.ANSWERS_SERVER_ERROR,
                ),
                strict=True,
            )
        ),
        label="status",
    ),
    Metric("fastserve_connections", Kind.GAUGE, "Connections of clients that are open."),
    _counter("fastserve_connections_total", "Connections of clients accepted.", WorkerCell.ACCEPTED),
    _gauge(
        "fastserve_requests_in_flight",
        "Requests for features that wait for rows, their turn or on-demand views.",
        WorkerCell.IN_FLIGHT,
    ),
    _counter("fastserve_requests_shed_total", "Requests refused because of too much load.", WorkerCell.SHED),
    _gauge(
        "fastserve_workers_shedding",
        "Workers that refuse what is too much for them, until they keep up again.",
        WorkerCell.SHEDDING,
    ),
    Metric(
        "fastserve_loop_lag_seconds",
        Kind.HISTOGRAM,
        "How late a timer of the event loop fired, looked at 20 times a second in each worker.",
        cells=(("", WorkerCell.LAG), ("sum", WorkerCell.LAG_NS)),
        scale=NS,
        bounds_s=LAG_BOUNDS_S,
    ),
    _counter(
        "fastserve_store_calls_total",
        "Batches of keys handed to the store, without second tries.",
        StoreCell.CALLS,
        Of.STORE,
    ),
    _counter("fastserve_store_keys_total", "Keys in these batches.", StoreCell.KEYS, Of.STORE),
    _counter(
        "fastserve_store_joined_total",
        "Reads that found the same key under way for another request, and read nothing.",
        StoreCell.JOINED,
        Of.STORE,
    ),
    _gauge(
        "fastserve_store_keys_in_flight",
        "Entity keys that are being read.",
        StoreCell.KEYS_IN_FLIGHT,
        Of.STORE,
    ),
    _counter(
        "fastserve_store_unprocessed_keys_total",
        "Keys that the store left out of an answer; they are asked for again.",
        StoreCell.UNPROCESSED,
        Of.STORE,
    ),
    _counter("fastserve_store_retries_total", "Tries after the first.", StoreCell.RETRIES, Of.STORE),
    _counter(
        "fastserve_store_throttles_total",
        "Answers by which the store said that it is asked too much.",
        StoreCell.THROTTLES,
        Of.STORE,
    ),
    _counter(
        "fastserve_store_timeouts_total", "Tries without an answer in time.", StoreCell.TIMEOUTS, Of.STORE
    ),
    _counter("fastserve_store_failed_reads_total", "Keys that were given up.", StoreCell.FAILURES, Of.STORE),
    _counter(
        "fastserve_store_hedges_total", "Second tries beside a slow first one.", StoreCell.HEDGES, Of.STORE
    ),
    _counter(
        "fastserve_store_hedges_won_total",
        "Second tries that answered first.",
        StoreCell.HEDGES_WON,
        Of.STORE,
    ),
    _counter(
        "fastserve_store_circuit_opened_total",
        "Times that a worker held the store for dead, and answered without asking it.",
        StoreCell.CIRCUIT_OPENED,
        Of.STORE,
    ),
    _gauge(
        "fastserve_store_circuits_open",
        "Workers that hold the store for dead now.",
        StoreCell.CIRCUITS_OPEN,
        Of.STORE,
    ),
    _gauge(
        "fastserve_store_calls_waiting",
        "Calls to the store that wait for a connection.",
        StoreCell.CALLS_WAITING,
        Of.STORE,
    ),
    Metric(
        "fastserve_row_cache_reads_total",
        Kind.COUNTER,
        "Reads of views with a cache_ttl: rows in the worker's cache (hit), asked of the store (miss), or "
        "out of the cache because the store had failed (stale).",
        cells=(
            ("hit", WorkerCell.CACHE_HITS),
            ("miss", WorkerCell.CACHE_MISSES),
            ("stale", WorkerCell.CACHE_STALE),
        ),
        label="outcome",
    ),
    _gauge("fastserve_row_cache_bytes", "Memory of the workers' caches of rows.", WorkerCell.CACHE_BYTES),
    _counter("fastserve_ingest_requests_total", "Requests with pushed records.", WorkerCell.INGEST_REQUESTS),
    _counter(
        "fastserve_ingest_records_total", "Pushed records that were written.", WorkerCell.INGEST_RECORDS
    ),
    _counter(
        "fastserve_ingest_refused_records_total",
        "Pushed records that couldn't be taken; nothing of their requests was written.",
        WorkerCell.INGEST_REFUSED,
    ),
    _counter(
        "fastserve_ingest_writes_total", "Writes of stream tiles to the store.", WorkerCell.INGEST_WRITES
    ),
    _counter(
        "fastserve_ingest_conflicts_total",
        "Writes that found another writer's tile in their place and began again.",
        WorkerCell.INGEST_CONFLICTS,
    ),
    _counter(
        "fastserve_ingest_repeats_total",
        "Additions to tiles that had been made before, by the same request.",
        WorkerCell.INGEST_REPEATS,
    ),
    Metric(
        "fastserve_traces_total",
        Kind.COUNTER,
        "Traces of requests that ended: sent to the collector, or dropped, for it took none or not so many.",
        cells=(("sent", WorkerCell.TRACES_SENT), ("dropped", WorkerCell.TRACES_DROPPED)),
        label="outcome",
    ),
    Metric("fastserve_workers", Kind.GAUGE, "Worker processes, by what they are doing.", labels=("state",)),
    _counter("fastserve_worker_starts_total", "Workers that became ready.", WorkerCell.STARTS),
    Metric(
        "fastserve_worker_resident_memory_bytes",
        Kind.GAUGE,
        "Memory of a worker, with what it shares with the others.",
        labels=("worker",),
    ),
    Metric("fastserve_start_time_seconds", Kind.GAUGE, "When the server was started, since the epoch."),
    Metric(
        "fastserve_build_info",
        Kind.GAUGE,
        "1, with the versions that run, and what is compiled: `yes`, `loops` (the inner ones alone) or `no`.",
        labels=("version", "python", "compiled", "workspace"),
    ),
)


def metrics_markdown() -> str:
    """Return ``docs/metrics.md``."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.all_labels)} "
        f"| {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join([_MARKDOWN_HEAD, *rows, ""])


def _milliseconds(bounds_s: tuple[float, ...]) -> str:
    return ", ".join(f"{bound_s * 1000:g}" for bound_s in bounds_s)


_MARKDOWN_HEAD = f"""# Metrics

`GET /metrics` on the admin listener (`--admin-port`, [settings](settings.md)) answers in Prometheus's text
format 0.0.4, for the whole server, whichever worker is asked. Counters go on when workers die, are replaced
or reloaded; they begin at 0 when the server starts. Those of requests, rows and on-demand views are exact at
any moment, the others of other workers at most half a second old.

**What they cost.** Where there is an admin listener, a request takes 0.6 to 1.3 us more with 16 clients,
whose requests share evaluations, and 1.3 to 1.6 us with one, in turns with the same without
(`python -m perf.micro.request fs_1x10 --metrics`). A log in JSON has no line per request and costs none.
Whole servers, bare and with metrics, a log in JSON and a scrape a second, in turns of one run: 30.7 us and
2.3 us more, with a log of slow requests 3.6, with a feature log of one in 1,000 beside it 1.8: what these two
cost is less than such a run can tell (`python -m perf.observed --service fs_1x10 --rounds 5 --duration-s 1
--warmup-s 0.2`, load average 4; another run had 1.9 and 2.0).

Shares are quotients: keys per call are `fastserve_store_keys_total / fastserve_store_calls_total`, the
missing share of a view is `fastserve_view_missing_rows_total / fastserve_view_rows_total`. The main store is
`store="main"`, the [others](stores.md#several-stores) have their names.

Buckets of `fastserve_request_duration_seconds` end at {_milliseconds(LATENCY_BOUNDS_S)} ms,
those of `fastserve_loop_lag_seconds` at {_milliseconds(LAG_BOUNDS_S)} ms.
[Operating](operating.md) says which of them to watch; `deploy/grafana/fastserve.json` is a dashboard,
`deploy/prometheus/alerts.yml` holds alerting rules.

This page is made from `fastserve/server/metrics_table.py` by `make docs`.

| metric | kind | labels | |
|---|---|---|---|"""
