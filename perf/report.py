"""Figures as a table for the terminal, beside the bare server, the floor and the budget.

Knows no processes.

Invariants:
1. A figure that was not measured is shown as a dash, never as zero.
2. A column of estimates says so: "at factor" is never printed without what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf.data import SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = (
    "service",
    "CPU us",
    "bare us",
    "x bare",
    "factor",
    "at factor",
    "budget",
    "floor",
    "x floor",
    "client floor",
    "Feast/us",
    "rounds us",
    "FS-QPS",
    "DDB-QPS",
    "keys/req",
    "keys/call",
    "p50 ms",
    "p99 ms",
    "RSS MiB",
    "stand-in us",
    "generator us",
    "errors",
    "wrong/checked",
)
_DASH = "–"
# Who else answers a service, as said and as kept.
_OTHERS = {"the bare server": "bare", "Feast": "feast"}
_FOOTNOTES = """\
CPU us: fastserve's CPU (user + system) per request, measured here. bare us: perf.bare's, in the same rounds.
factor: perf.bare's CPU here / that of such a server on the reference machine, for look-ups with as many views
x 100 features{}.
at factor: CPU us / factor, an ESTIMATE of what fastserve takes on the reference machine, to hold against the
budget, which was set there. Not a measurement: perf/README.md says what else is in the factor."""
_FEAST = """\
Feast {version} on the function and inputs of {name}, in the same rounds: {cpu_us:.0f} us of CPU per request
(rounds {rounds}), {ratio:.1f} times fastserve's {ours_us:.1f} us; {qps:.0f} answers per second."""


def format_table(services: Sequence[dict[str, Any]]) -> str:
    """Lay the figures of several services out in columns."""
    rows = [list(_COLUMNS), *(_row(figures) for figures in services)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def format_footnotes(services: Sequence[dict[str, Any]]) -> str:
    """Say what the columns hold, with the factor's figures."""
    held = [figures.get("reference", {}) for figures in services]
    factors = {
        entry["bare_service"]: f"{entry['bare_us']:.1f} / {entry['trial_us']:g}"
        for entry in held
        if "machine_factor" in entry
    }
    quotients = ", ".join(f"{service} {quotient}" for service, quotient in factors.items())
    return "\n".join([_FOOTNOTES.format(f" ({quotients})" if quotients else ""), *_feast_lines(services)])


def _feast_lines(services: Sequence[dict[str, Any]]) -> list[str]:
    return [
        _FEAST.format(
            version=feast["version"],
            name=figures["name"],
            cpu_us=feast["cpu_us_per_request"],
            rounds=_span(feast["rounds_cpu_us"]),
            ratio=feast["x_fastserve"],
            ours_us=figures["cpu_us_per_request"],
            qps=feast["fs_qps"],
        )
        for figures in services
        if (feast := figures.get("feast"))
    ]


def format_floors(services: Sequence[dict[str, Any]]) -> str:
    """Lay out floors measured without a server."""
    form = "{:>15}  {:>12}  {:>8}  {:>8}  {:>10}  {:>12}  {:>12}"
    lines = [
        form.format("service", "bytes", "floor us", "FS-QPS", "keys/call", "stand-in us", "generator us")
    ]
    for figures in services:
        for kind, floor in figures["floor"].items():
            values = [floor["cpu_us_per_request"], floor["fs_qps"], floor["keys_per_call"]]
            values += [floor["stand_in_cpu_us"], floor["generator_cpu_us"]]
            lines.append(form.format(figures["name"], kind, *(f"{value:.1f}" for value in values)))
    return "\n".join(lines)


def over_budget(services: Sequence[dict[str, Any]]) -> list[str]:
    """Name the services that cost more than their budget, and those that are wrong or fail."""
    found = []
    for figures in services:
        budget_us = SHAPES[figures["name"]].budget_us
        cpu_us = figures["cpu_us_per_request"]
        if budget_us is not None and cpu_us > budget_us:
            found.append(f"{figures['name']}: {cpu_us:.1f} us, budget {budget_us:g} us{_at_factor(figures)}")
        others = ((f" of {who}", figures.get(name, {})) for who, name in _OTHERS.items())
        for who, entry in (("", figures), *others):
            if entry.get("errors") or entry.get("wrong"):
                counts = f"{entry['errors']} errors, {entry['wrong']} wrong{who}"
                found.append(f"{figures['name']}: {counts}: {entry['problems']}")
    return found


def has_failed(services: Sequence[dict[str, Any]]) -> bool:
    """Tell whether an answer failed or was wrong, the bare server's included."""
    names = _OTHERS.values()
    entries = [
        entry for figures in services for entry in (figures, *(figures.get(name, {}) for name in names))
    ]
    return any(entry.get("errors") or entry.get("wrong") for entry in entries)


def _at_factor(figures: dict[str, Any]) -> str:
    held = figures.get("reference", {})
    if "machine_factor" not in held:
        return ""
    return f" (at the machine factor {held['machine_factor']:.2f}: {held['cpu_us_at_factor']:.1f} us)"


def _row(figures: dict[str, Any]) -> list[str]:
    shape = SHAPES[figures["name"]]
    cpu_us = figures["cpu_us_per_request"]
    held = figures.get("reference", {})
    floors = figures.get("floor", {})
    floor_us = floors.get("all_bytes", {}).get("cpu_us_per_request")
    client_us = floors.get("client_bytes", {}).get("cpu_us_per_request")
    return [
        figures["name"],
        f"{cpu_us:.1f}",
        _number(held.get("x_bare") and held["bare_us"], ".1f"),
        _number(held.get("x_bare"), ".2f"),
        _number(held.get("machine_factor"), ".2f"),
        _number(held.get("cpu_us_at_factor"), ".1f"),
        _number(shape.budget_us, "g"),
        _number(floor_us, ".1f"),
        _number(floor_us and cpu_us / floor_us, ".2f"),
        _number(client_us, ".1f"),
        _number(_times_feast(figures), ".0f"),
        _span(figures.get("rounds_cpu_us", ())),
        f"{figures['fs_qps']:.0f}",
        f"{figures['ddb_qps']:.0f}",
        f"{figures['keys_per_request']:.2f}",
        f"{figures['keys_per_call']:.1f}",
        f"{figures['p50_ms']:.2f}",
        f"{figures['p99_ms']:.2f}",
        f"{figures['rss_mib']:.0f}",
        f"{figures['stand_in_cpu_us']:.1f}",
        f"{figures['generator_cpu_us']:.1f}",
        str(figures["errors"]),
        f"{figures['wrong']}/{figures['verified']}",
    ]


def _times_feast(figures: dict[str, Any]) -> float | None:
    """Give how much Feast takes for each of our microseconds: measured here, else as measured earlier."""
    if "feast" in figures:
        ratio: float = figures["feast"]["x_fastserve"]
        return ratio
    feast_us = SHAPES[figures["name"]].feast_us
    return feast_us and feast_us / figures["cpu_us_per_request"]


def _span(rounds_us: Sequence[float]) -> str:
    return f"{min(rounds_us):.1f}-{max(rounds_us):.1f}" if rounds_us else _DASH


def _number(value: float | None, form: str) -> str:
    return _DASH if value is None else format(value, form)
