"""A scenario's result as one HTML file, picture included: what was promised, what was measured, on what.

Reads a result and a picture's bytes; knows no processes.

Invariants:
1. The scaled row stands apart and is called an extrapolation.
2. Everything shown is escaped, and nothing is fetched: the page is one file.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from perf.scenario.definition import PERCENTILES
from perf.scenario.figures import STALL_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; margin: 2rem auto; max-width: 76rem }
body { padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem }
h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
td, th { padding: .25rem .6rem; text-align: right }
th { border-bottom: 1px solid #9aa4ad; font-weight: 600 }
td:first-child, th:first-child { text-align: left }
tr:nth-child(even) td { background: #f4f6f8 }
.no { color: #b3261e; font-weight: 600 }
.yes { color: #1c7a4d }
.scaled { border-left: 4px solid #e0912f; background: #fdf6ec; padding: .6rem 1rem; margin: 1rem 0 }
.wide { overflow-x: auto }
img { max-width: 100% }
.quiet { color: #5b646c }
"""
_HOW = """All at once, open loop, at half of saturation, store with its latency law. CPU: each alone, store at
once, 16 clients. Above: what a request takes longer than the store's own call, percentile by percentile."""
_STALLS = f"""Late probes: of /healthz, one each 5 ms, that took over {STALL_MS} ms, and those of them during
which the server worked for so long. On a machine without a CPU to spare they hold the time in which the
server was ready and something else ran, too: the last column is its share of the time. Server, stand-in,
generator: how much of a core each took."""


def render_page(document: dict[str, Any], picture: bytes) -> str:
    """Give the page's text."""
    image = base64.b64encode(picture).decode()
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(document['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{escape(document['title'])}</h1>",
        f"<p class=quiet>{escape(_where(document))}</p>",
        f'<img alt="latency, load, CPU, the article" src="data:image/png;base64,{image}">',
        "<h2>Promised and measured</h2>",
        _promises(document["promises"]),
        f"<h2>Services</h2><p>{_HOW}</p>",
        _services(document),
        _scaled(document),
        "<h2>Loads</h2>",
        _loads(document["loads"]),
        f"<p class=quiet>{_STALLS}</p><h2>Each service alone</h2>",
        _alone(document["alone"]),
        "<h2>Machine and versions</h2>",
        _table(["", ""], [[name, str(value)] for name, value in _facts(document)]),
        "</html>\n",
    ]
    return "".join(parts)


def _scaled(document: dict[str, Any]) -> str:
    scaled = document["extrapolation"]
    return (
        "<div class=scaled><b>Scaled, an extrapolation and not a measurement:</b> at "
        f"{document['mix_cpu_us']:.0f} µs of CPU per request of the mix, {scaled['fs_qps']:,} FS-QPS and "
        f"{scaled['ddb_qps']:,.0f} store keys per second would take <b>{scaled['cores']:.1f} cores</b> "
        "of the server, if cores added up. No network, no store and no balancer are in it.</div>"
    )


def _where(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {document['date']}, commit {document['commit']}; "
        f"load average before {document['load_average_before']}; took {document['took_s']:.0f} s"
    )


def _facts(document: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    yield from document["machine"].items()
    yield from document["versions"].items()
    yield from document["options"].items()


def _promises(promises: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            escape(entry["what"]),
            f"{entry['limit']:g}",
            f"{entry['measured']:.2f}",
            "<span class=yes>holds</span>" if entry["holds"] else "<span class=no>does not hold</span>",
        ]
        for entry in promises
    ]
    return _table(["", "at most", "measured", ""], rows, raw=True)


def _services(document: dict[str, Any]) -> str:
    head = ["service", "features", "keys", "FS-QPS", "DDB-QPS", *(f"{name} ms" for name in PERCENTILES)]
    rows = [
        [
            service["name"],
            f"{service['features']:,}",
            str(service["keys"]),
            *_traffic(service),
            f"{service['above_store_ms']['p50']:.2f}",
            f"{service['above_store_ms']['p99']:.2f}",
            f"{service['cpu_us_per_request']:.1f}",
            str(service["errors"]),
        ]
        for service in document["services"]
    ]
    overall, article = document["overall"], document["article"]
    rows.append(
        ["all", "", "", *_traffic(overall), "", "", f"{document['mix_cpu_us']:.1f}", str(overall["errors"])]
    )
    latencies = [f"{article['overall'][name]:g}" for name in PERCENTILES]
    ddb = f"{article['ddb_qps']:,.0f}" if article["ddb_qps"] else "–"
    qps = f"{document['extrapolation']['fs_qps']:,}"
    rows.append(["the article (its cluster)", "", "", qps, ddb, *latencies, "–", "–", "–", "–"])
    return _table([*head, "p50 above", "p99 above", "CPU µs", "errors"], rows)


def _traffic(entry: dict[str, Any]) -> list[str]:
    latencies = [f"{entry[f'{name}_ms']:.2f}" for name in PERCENTILES]
    return [f"{entry['fs_qps']:,.0f}", f"{entry['ddb_qps']:,.0f}", *latencies]


def _loads(loads: Sequence[dict[str, Any]]) -> str:
    head = [
        "load",
        "FS-QPS",
        "DDB-QPS",
        *(f"{name} ms" for name in PERCENTILES),
        "errors",
        "CPU µs",
        "keys/call",
    ]
    head += [
        "server",
        "stand-in",
        "generator",
        "late probes",
        "server at work",
        "longest ms",
        "ready, not run",
    ]
    rows = [
        [
            load["name"],
            *_traffic(load["overall"]),
            str(load["overall"]["errors"]),
            f"{load['cpu_us_per_request']:.1f}",
            f"{load['keys_per_call']:.1f}",
            *(f"{load['busy_cores'][name]:.2f}" for name in ("server", "stand_in", "generator")),
            f"{load['stalls'][f'over_{STALL_MS}_ms']}/{load['stalls']['probes']}",
            str(load["stalls"][f"server_worked_over_{STALL_MS}_ms"]),
            f"{load['stalls']['longest_ms']:.1f}",
            f"{load['stalls']['server_waited_for_cpu_share']:.1%}",
        ]
        for load in loads
    ]
    return _table(head, rows)


def _alone(alone: dict[str, dict[str, Any]]) -> str:
    head = [
        "service",
        "CPU µs",
        "rounds",
        "floor µs",
        "client floor µs",
        "FS-QPS",
        "keys/call",
        "answer bytes",
        "RSS MiB",
    ]
    rows = [
        [
            name,
            f"{entry['cpu_us']:.1f}",
            " ".join(f"{value:.1f}" for value in entry["rounds_cpu_us"]),
            f"{entry['floor_us']:.1f}",
            f"{entry['client_floor_us']:.1f}",
            f"{entry['fs_qps']:,.0f}",
            f"{entry['keys_per_call']:.1f}",
            f"{entry['response_bytes']:,}",
            f"{entry['rss_mib']:.0f}",
        ]
        for name, entry in alone.items()
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False) -> str:
    clean = (lambda text: text) if raw else escape
    lines = ["".join(f"<td>{clean(cell)}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"
