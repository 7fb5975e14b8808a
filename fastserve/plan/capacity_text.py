"""A capacity set for a reader: what each service costs, what all need together, what was assumed.

It computes nothing: what it prints stands in the `Capacity`.

Invariants
1. The first line says that it is an estimate; every source of a CPU figure is named.
"""

from __future__ import annotations

from fastserve.plan.capacity import CPU_SOURCE, REDIS_SOURCE, TABLE_QUOTA_UNITS_PER_S, Capacity
from fastserve.plan.explain import PRICE_OF
from fastserve.plan.text_table import text_table

_LABEL_WIDTH = 20


def capacity_text(found: Capacity) -> str:
    """Return the capacity as plain text, with a line break at its end."""
    names = ", ".join(load.service for load in found.loads)
    head = f"An ESTIMATE for {found.qps:,g} requests per second of {names}"
    parts = [head, _services(found), _machines(found), _store(found), _assumed(found)]
    return "\n\n".join(parts) + "\n"


def _services(found: Capacity) -> str:
    rows = [
        [
            load.service,
            f"{load.qps:,g}",
            f"{load.cpu_us:,.0f}",
            str(load.keys),
            f"{load.read_units:,g}",
            f"{load.store_bytes:,.0f}",
            f"{load.answer_bytes:,.0f}",
        ]
        for load in found.loads
    ]
    headings = ["service", "per second", "CPU us", "keys", "read units", "bytes in", "bytes out"]
    lines = ["Each request", text_table(headings, rows, set(headings[1:]), "  ")]
    sources = dict.fromkeys(load.cpu_source for load in found.loads)
    lines += [f"  CPU: {source}" for source in sources]
    if CPU_SOURCE in sources and any(load.of_redis_alone for load in found.loads):
        lines.append(f"  CPU: {REDIS_SOURCE}")
    code = [load.service for load in found.loads if load.runs_code]
    if code:
        lines.append(
            f"  The time of on-demand code isn't in it: {', '.join(code)}; measure them (--measured)"
        )
    return "\n".join(lines)


def _machines(found: Capacity) -> str:
    assumed = found.assumed
    where = "" if assumed.zones == 1 else f" in {assumed.zones} zones, one of which may fail"
    flying, slow = found.in_flight(assumed.call_mean_ms), found.in_flight(assumed.call_p99_ms)
    return _block(
        "Servers",
        {
            "cores at work": f"{found.busy_cores:,.1f}",
            "workers": f"{found.workers:,}, each with a core, {assumed.utilization:.0%} busy",
            "machines": f"{found.machines:,} of {assumed.machine_cpus} CPUs{where}",
            "memory": f"{found.memory_mib_per_machine:,} MiB a machine",
            "requests in flight": f"{flying:,.0f}; {slow:,.0f} while calls take {assumed.call_p99_ms:g} ms",
            "client connections": f"{slow:,.0f} at least, kept alive (one request at a time on each)",
            "network": f"{_rate(found.store_bytes_per_s)} in, {_rate(found.answer_bytes_per_s)} out, "
            f"{_rate((found.store_bytes_per_s + found.answer_bytes_per_s) / found.machines)} a machine",
        },
    )


def _store(found: Capacity) -> str:
    low, high = found.calls_per_s
    connections, default = found.store_connections_per_worker, found.assumed.store_connections
    enough = (
        f"store_connections is {default}"
        if connections <= default
        else f"raise store_connections ({default})"
    )
    lines = {
        "keys": f"{found.keys_per_s:,.0f} per second",
        "calls": f"{low:,.0f} to {high:,.0f} per second, by how many requests share one",
        "connections": f"{connections:,} a worker, {connections * found.workers:,} in all ({enough})",
    }
    if found.of_redis_alone:
        lines["connections"] = f"{connections} a worker to each Redis server, {found.workers:,} in all"
    if found.is_priced:
        none = "; of Redis none" if any(load.unpriced for load in found.loads) else ""
        is_consistent = any(load.reads_consistently for load in found.loads)
        how = "consistent where a table is pushed to" if is_consistent else "eventually consistent"
        table, units = found.busiest_table
        over = ": raise its quota" if units > TABLE_QUOTA_UNITS_PER_S else ""
        lines |= {
            "read units": f"{found.read_units_per_s:,.0f} per second, {how}{none}",
            "busiest table": f"{table}: {units:,.0f} per second (default quota "
            f"{TABLE_QUOTA_UNITS_PER_S:,}{over})",
            "on demand": f"{found.on_demand_usd_per_month:,.0f} USD per month of 730 hours",
            "provisioned": f"{found.provisioned_usd_per_month:,.0f} USD per month, without reservation",
        }
    return _block("Store", lines)


def _assumed(found: Capacity) -> str:
    assumed = found.assumed
    lines = {
        "TLS to the store": f"{assumed.store_tls_share:.0%} more CPU",
        "a store call": f"{assumed.call_mean_ms:g} ms in the mean, {assumed.call_p99_ms:g} ms at p99",
    }
    if found.is_priced:
        price = f"{found.price_per_million_read_units_usd:g} USD per million read units"
        lines["mean rate"] = f"{assumed.mean_share:.0%} of the above, for the price on demand"
        lines["prices"] = f"{price}; {PRICE_OF}"
    return _block("Assumed", {**lines, "keys": "no two requests ask for the same"})


def _block(title: str, lines: dict[str, str]) -> str:
    return "\n".join([title, *(f"  {name:<{_LABEL_WIDTH}}{text}" for name, text in lines.items())])


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8 / 1e9:,.2f} Gbit/s"
