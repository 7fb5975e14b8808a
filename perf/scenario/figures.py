"""A scenario's figures out of the generator's reports: what is kept as JSON, and held against the promises.

Knows no processes and no pictures.

Invariants:
1. `services[]` is the load at half of the saturation under the latency law; a service's `cpu_us_per_request`
   there is its own, measured alone without the law, since in a mix no call to the store is one service's.
2. What is scaled says that it is an extrapolation, in the figure itself.
3. A verdict has the limit, the figure and whether it holds; nothing that wasn't measured has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf.data import service_plan
from perf.scenario.definition import PERCENTILES
from perf.scenario.measure import CLIENT_FLOOR, FASTSERVE, FLOOR, LAW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.scenario.definition import Scenario

Report = dict[str, Any]
QUOTED_SHARE = 0.5
STALL_MS = 10


def scenario_figures(scenario: Scenario, measured: dict[str, Any]) -> dict[str, Any]:
    """Give a scenario's figures."""
    alone = {service: _alone_figures(kinds) for service, kinds in measured["alone"].items()}
    mix_cpu_us = sum(share * alone[service]["cpu_us"] for service, share in scenario.shares.items())
    loads = [
        load_figures(scenario, entry["law"], entry["share"], entry["report"]) for entry in measured["loads"]
    ]
    quoted = next(load for load in loads if load["law"] and load["share"] == QUOTED_SHARE)
    services = [
        {**service, "cpu_us_per_request": alone[service["name"]]["cpu_us"], **_shape(service["name"])}
        for service in quoted["services"]
    ]
    figures = {
        "scenario": scenario.name,
        "title": scenario.title,
        "shares": dict(scenario.shares),
        "services": services,
        "overall": quoted["overall"],
        "mix_cpu_us": mix_cpu_us,
        # 100,000 requests a second of so many microseconds each.
        "cores_per_100k_fs_qps": mix_cpu_us * 100_000 / 1e6,
        "extrapolation": _extrapolate(scenario, mix_cpu_us),
        "article": {"overall": scenario.article_ms, "ddb_qps": scenario.article_ddb_qps},
        "alone": alone,
        "saturation": {law: _saturation_figures(report) for law, report in measured["saturation"].items()},
        "loads": loads,
    }
    return {**figures, "promises": _promises(scenario, figures, quoted)}


def problems_of(figures: dict[str, Any]) -> list[str]:
    """Tell what failed or was wrong, wherever it was."""
    entries = [
        (f"{load['name']}, {service['name']}", service)
        for load in figures["loads"]
        for service in load["services"]
    ]
    entries += [(f"{name} alone", entry) for name, entry in figures["alone"].items()]
    return [
        f"{where}: {entry['errors']} errors, {entry['wrong']} wrong: {entry['problems']}"
        for where, entry in entries
        if entry["errors"] or entry["wrong"]
    ]


def _shape(service: str) -> dict[str, int]:
    plan = service_plan(service)
    return {"keys": plan.key_count, "features": len(plan.outputs)}


def _extrapolate(scenario: Scenario, mix_cpu_us: float) -> dict[str, Any]:
    fs_qps = scenario.scaled_fs_qps
    keys = sum(share * service_plan(service).key_count for service, share in scenario.shares.items())
    return {
        "is": "an extrapolation from CPU per request on this machine, not a measurement",
        "fs_qps": fs_qps,
        "ddb_qps": fs_qps * keys,
        "cores": mix_cpu_us * fs_qps / 1e6,
    }


def _alone_figures(kinds: dict[str, Sequence[Report]]) -> dict[str, Any]:
    report = _median(kinds[FASTSERVE])
    (stream,) = report["streams"]
    server = report["processes"]["server"]
    rounds = [entry for kind in kinds[FASTSERVE] for entry in kind["streams"]]
    return {
        "cpu_us": _cpu_us(report),
        "rounds_cpu_us": [_cpu_us(entry) for entry in kinds[FASTSERVE]],
        "floor_us": _cpu_us(_median(kinds[FLOOR])),
        "client_floor_us": _cpu_us(_median(kinds[CLIENT_FLOOR])),
        "system_share": server["system_share"],
        "rss_mib": server["rss_mib"],
        "fs_qps": report["fs_qps"],
        "keys_per_request": report["store"]["keys_per_request"],
        "keys_per_call": report["store"]["keys_per_call"],
        "response_bytes": stream["response_bytes"],
        "stand_in_cpu_us": report["processes"]["stand_in"]["cpu_us_per_request"],
        "generator_cpu_us": report["processes"]["generator"]["cpu_us_per_request"],
        **{name: sum(entry[name] for entry in rounds) for name in ("errors", "verified", "wrong")},
        "problems": [problem for entry in rounds for problem in entry["problems"]],
    }


def _median(reports: Sequence[Report]) -> Report:
    return sorted(reports, key=_cpu_us)[len(reports) // 2]


def _cpu_us(report: Report) -> float:
    return float(report["processes"]["server"]["cpu_us_per_request"])


def _saturation_figures(report: Report) -> dict[str, Any]:
    return {
        "fs_qps": report["fs_qps"],
        "ddb_qps": report["store"]["ddb_qps"],
        "cpu_us_per_request": _cpu_us(report),
        "keys_per_call": report["store"]["keys_per_call"],
        "busy_cores": _busy_cores(report),
        **_percentiles(report["all_latency_ms"]),
    }


def load_figures(scenario: Scenario, law: str | None, share: float, report: Report) -> dict[str, Any]:
    """Give the figures of the mix at one rate."""
    store, seconds = report["store"], report["measured_s"]
    overall = {
        "fs_qps": report["fs_qps"],
        "ddb_qps": store["ddb_qps"],
        **_percentiles(report["all_latency_ms"]),
        "errors": sum(stream["errors"] for stream in report["streams"]),
    }
    figures = {
        "name": f"{'with' if law else 'without'} the latency law, {share:.0%} of saturation",
        "law": law == LAW,
        "share": share,
        "seconds": seconds,
        "requests": report["requests"],
        "overall": overall,
        "services": [
            _service_figures(stream, store["keys_by_table"], seconds) for stream in report["streams"]
        ],
        "cpu_us_per_request": _cpu_us(report),
        "keys_per_request": store["keys_per_request"],
        "keys_per_call": store["keys_per_call"],
        "busy_cores": _busy_cores(report),
        "rss_mib": report["processes"]["server"]["rss_mib"],
        "stalls": _stalls(report),
        "buckets_ms": _together(report["streams"]),
    }
    if law:
        calls = store["call_ms"]
        figures["store_call_ms"] = _percentiles(calls)
        figures["store_buckets_ms"] = store["call_buckets_ms"]
        figures["above_store_ms"] = {
            name: overall[f"{name}_ms"] - calls[name] for name in scenario.above_store_budget_ms
        }
        for service in figures["services"]:
            service["above_store_ms"] = {
                name: service[f"{name}_ms"] - calls[name] for name in scenario.above_store_budget_ms
            }
    return figures


def _service_figures(stream: Report, keys_by_table: dict[str, int], seconds: float) -> dict[str, Any]:
    tables = {place.view.table for place in service_plan(stream["name"]).places}
    return {
        "name": stream["name"],
        "fs_qps": stream["fs_qps"],
        "ddb_qps": sum(keys_by_table.get(table, 0) for table in tables) / seconds,
        **_percentiles(stream["latency_ms"]),
        **{name: stream[name] for name in ("errors", "verified", "wrong", "problems")},
        "buckets_ms": stream["latency_buckets_ms"],
    }


def _percentiles(latency_ms: dict[str, float]) -> dict[str, float]:
    return {f"{name}_ms": latency_ms[name] for name in PERCENTILES} | {"p999_ms": latency_ms["p99.9"]}


def _busy_cores(report: Report) -> dict[str, float]:
    """Give how much of a core each process took: what came near one limited the rest."""
    return {name: entry["cpu_s"] / report["measured_s"] for name, entry in report["processes"].items()}


def _stalls(report: Report) -> dict[str, Any]:
    """Tell how often and how long /healthz was answered late, and how often the server was at work then."""
    (probe,) = report["probes"]
    return {
        "probes": probe["latency_ms"]["count"],
        f"over_{STALL_MS}_ms": probe["over_10_ms"],
        f"server_worked_over_{STALL_MS}_ms": probe["server_worked_over_10_ms"],
        f"unjudged_over_{STALL_MS}_ms": probe["unjudged_over_10_ms"],
        "p99_ms": probe["latency_ms"]["p99"],
        "longest_ms": probe["latency_ms"]["max"],
        "errors": probe["errors"],
        f"generator_over_{STALL_MS}_ms": probe["generator_late_over_10_ms"],
        "generator_longest_ms": probe["generator_late_max_ms"],
        "server_waited_for_cpu_share": report["processes"]["server"]["waited_for_cpu_s"]
        / report["measured_s"],
    }


def _together(streams: Sequence[Report]) -> list[list[float]]:
    counts: dict[float, int] = {}
    for stream in streams:
        for edge_ms, count in stream["latency_buckets_ms"]:
            counts[edge_ms] = counts.get(edge_ms, 0) + count
    return [[edge_ms, count] for edge_ms, count in sorted(counts.items())]


def _promises(scenario: Scenario, figures: dict[str, Any], quoted: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold figures against what was promised: latencies and stalls of the quoted load."""
    found = [_promise("CPU per request of the mix, us", scenario.mix_budget_us, figures["mix_cpu_us"])]
    found += [
        _promise(
            f"{name} above the store's own call, ms, {service['name']}",
            limit,
            service["above_store_ms"][name],
        )
        for service in quoted["services"]
        for name, limit in scenario.above_store_budget_ms.items()
    ]
    found += [
        _promise(f"{name} of all services, ms (the article's)", limit, quoted["overall"][f"{name}_ms"])
        for name, limit in scenario.article_ms.items()
    ]
    stalls = quoted["stalls"]
    at_work = stalls[f"server_worked_over_{STALL_MS}_ms"] + stalls[f"unjudged_over_{STALL_MS}_ms"]
    what = f"late probes of /healthz during which the server worked over {STALL_MS} ms, or that isn't known"
    return [*found, _promise(what, 0, at_work)]


def _promise(what: str, limit: float, measured: float) -> dict[str, Any]:
    return {"what": what, "limit": limit, "measured": measured, "holds": measured <= limit}
