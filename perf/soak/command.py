"""`python -m perf soak`: a server under faults of every kind, each of its answers judged alone.

Reads argv, prints a summary, writes JSON and a picture.

Invariants:
1. It ends with 1 when a value was wrong, a failure unexplained, an acknowledged event lost or doubled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load.child import ROOT
from perf.progress import Progress
from perf.soak.matrix import GROUPS
from perf.soak.run import SoakOptions, soak

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

RESULT = ROOT / "perf" / "results" / "soak.json"
_RATES = ("vectors_per_s", "new_connections_per_s", "batches_per_s", "totals_per_s", "write_every_s")
_SIZES = ("batch_rows", "writers", "write_events", "events", "event_keys", "workers", "seed", "entities")


def add_command(commands: Any) -> None:
    """Declare the command."""
    from pathlib import Path

    default = SoakOptions()
    command = commands.add_parser("soak", help="load a server under faults and judge every answer")
    command.add_argument("--minutes", type=float, default=default.seconds / 60)
    command.add_argument(
        "--faults", default=",".join(GROUPS), help="groups of the matrix, with commas; or none"
    )
    command.add_argument("--phase-s", type=float, default=default.phase_s, help="length of a fault")
    command.add_argument("--calm-s", type=float, default=default.calm_s, help="length of the calm after it")
    command.add_argument("--kill-every-s", type=float, help="kill a worker every so often")
    command.add_argument("--reload-every-s", type=float, help="send SIGHUP every so often")
    command.add_argument("--sample-every-s", type=float, default=default.sample_every_s)
    for name in _RATES:
        flag = "--" + name.replace("_", "-")
        command.add_argument(flag, type=float, default=getattr(default, name))
    for name in _SIZES:
        flag = "--" + name.replace("_", "-")
        command.add_argument(flag, type=int, default=getattr(default, name))
    command.add_argument("--json", metavar="FILE", type=Path, default=RESULT)
    command.add_argument("--picture", metavar="FILE", type=Path, help="beside the JSON unless given")
    command.set_defaults(run=run)


def options_of(arguments: argparse.Namespace) -> SoakOptions:
    """Read the options.

    Raises:
        SystemExit: an unknown group of faults.
    """
    groups = tuple(name for name in arguments.faults.split(",") if name != "none")
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        sys.exit(f"--faults: expected some of {', '.join(GROUPS)}, got {', '.join(unknown)}")
    named = ("phase_s", "calm_s", "kill_every_s", "reload_every_s", "sample_every_s", *_RATES, *_SIZES)
    values = {name: getattr(arguments, name) for name in named}
    return SoakOptions(seconds=arguments.minutes * 60, faults=groups, **values)


def run(arguments: argparse.Namespace) -> int:
    """Run, keep and say; give the exit status."""
    options = options_of(arguments)
    with Progress("soak", options.seconds + options.last_calm_s + 4) as bar:
        report = soak(options, bar)
    document = {**report, **describe_environment()}
    keep(document, arguments.json, arguments.picture or arguments.json.with_suffix(".png"))
    print(summary(document))
    problems = problems_of(document)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def keep(document: dict[str, Any], result: Path, picture: Path) -> None:
    """Write the result and its picture."""
    from perf.soak.picture import draw_soak
    from perf.style import save

    keep_result(document, result)
    save(draw_soak(document), picture)


def summary(document: dict[str, Any]) -> str:
    """Say in some lines what came of it."""
    ingest = document["ingest"]
    pauses, paused_s = document["pauses"]
    disturbed = f"{len(document['phases'])} faults, {document['killed']} kills, {document['reloads']} reloads"
    judged = f"{document['requests']:,} requests, {document['reads']:,} keys judged"
    failed = f"wrong {document['wrong']}, unexplained {document['unexplained']}; explained by one of the"
    pushed = f"{ingest['events']:,} events acknowledged in {ingest['requests']:,} requests"
    lines = [
        f"{document['seconds']:.0f} s, {disturbed}: {judged}",
        f"{failed} machine's {pauses} pauses ({paused_s} s) only {document['only_by_pauses']}",
        f"{pushed} ({ingest['repeats']:,} repeats): {ingest['lost']} lost, {ingest['doubled']} doubled",
    ]
    lines += [
        f"  {stream}: {counts}, ms {document['latency_ms'].get(stream, '')}"
        for stream, counts in document["by_stream"].items()
    ]
    lines += [_growth(worker) for worker in document["workers"][:4] if "rss_mib_per_h" in worker]
    cpu = ", ".join(f"{name} {seconds:.0f}" for name, seconds in document["cpu_s"].items())
    return "\n".join([*lines, f"CPU s: {cpu}; the log: {document['log'] or 'nothing unusual'}"])


def _growth(worker: dict[str, Any]) -> str:
    first, second = worker["descriptors_halves"]
    return (
        f"worker {worker['worker']}, {worker['lived_s']:.0f} s: RSS {worker['rss_mib_per_h']:+.2f} MiB/h, "
        f"private {worker['private_mib_per_h']:+.2f} MiB/h, descriptors {first:.0f} and {second:.0f}"
    )


def problems_of(document: dict[str, Any]) -> list[str]:
    """Give what must not be, each in a line."""
    shown = [*document["wrong_shown"], *document["unexplained_shown"]]
    found = [f"{entry['kind']} ({entry['phase']}, {entry['stream']}): {entry['detail']}" for entry in shown]
    ingest = document["ingest"]
    found += [f"{ingest[name]} events {name}" for name in ("lost", "doubled", "wrong_sums") if ingest[name]]
    if "Traceback" in document["log"]:
        found.append(f"{document['log']['Traceback']} tracebacks in the server's log")
    return found
