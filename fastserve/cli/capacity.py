"""`fastserve capacity SERVICE… --qps N…`: what a rate needs and costs, before anybody rents it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastserve.cli.flags import Subparsers, add_command, add_settings, count_argument, load_settings
from fastserve.errors import DefinitionError, shown

if TYPE_CHECKING:
    from fastserve.plan.capacity import Measured


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "capacity", run, "estimate cores, machines, connections, read units and price for a rate"
    )
    parser.add_argument("services", metavar="SERVICE", nargs="+", help="names of feature services")
    parser.add_argument(
        "--qps",
        metavar="N",
        nargs="+",
        required=True,
        type=_number(0, 1e9),
        help="requests per second at the peak: one number for each service",
    )
    parser.add_argument(
        "--measured",
        metavar="FILE",
        help="figures of `python -m perf … --json FILE`, which go before the estimate of a request's CPU",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    _add_assumptions(parser)
    add_settings(parser, ("repo", "workspace", "store", "store_connections"))


def _add_assumptions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("assumptions")
    share, time = _number(0.01, 1), _number(0.01, 60_000)
    flags: dict[str, tuple[str, Callable[[str], float], str]] = {
        "utilization": ("SHARE", share, "how busy a worker may be at the peak (default: 0.6)"),
        "machine_cpus": ("N", count_argument(1), "CPUs of a machine (default: 8)"),
        "zones": ("N", count_argument(1), "zones that hold the machines, one may fail (default: 3)"),
        "mean_share": ("SHARE", share, "the month's mean rate as a part of the peak's (default: 1)"),
        "call_mean_ms": ("MS", time, "mean time of a store call (default: 4.5; of Redis alone 1)"),
        "call_p99_ms": ("MS", time, "99th percentile of it (default: 22; of Redis alone 5)"),
        "store_tls_share": ("SHARE", _number(0, 10), "CPU that TLS to the store adds (default: 0.25)"),
    }
    for name, (metavar, kind, help_text) in flags.items():
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar=metavar, type=kind, help=help_text
        )
    group.add_argument(
        "--price-per-million-read-units",
        metavar="USD",
        type=_number(0, 1e6),
        help="price of a million read request units (default: that of us-east-1, on demand)",
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Estimate what services need."""
    from fastserve.cli.workspace import load_workspace
    from fastserve.plan.capacity import Assumptions, capacity, service_load, usual_assumptions
    from fastserve.plan.capacity_text import capacity_text
    from fastserve.plan.explain import PRICE_PER_MILLION_READ_UNITS_USD, explain

    services, rates = arguments.services, arguments.qps
    if len(services) != len(rates):
        raise DefinitionError(f"--qps: expected {len(services)} numbers, one a service, got {len(rates)}")
    settings = load_settings(arguments, environ)
    measured = {} if arguments.measured is None else read_measured(Path(arguments.measured))
    workspace = load_workspace(settings)
    unpriced = workspace.stores.unpriced
    loads = [
        service_load(explain(workspace.service(name), unpriced=unpriced), qps, measured.get(name))
        for name, qps in zip(services, rates, strict=True)
    ]
    given = {
        name: value
        for name in Assumptions.__dataclass_fields__
        if (value := getattr(arguments, name, None)) is not None
    }
    given["store_connections"] = settings.store_connections
    price = arguments.price_per_million_read_units
    assumed = usual_assumptions(loads, **given)
    found = capacity(loads, PRICE_PER_MILLION_READ_UNITS_USD if price is None else price, assumed)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print(capacity_text(found), end="")
    return 0


def read_measured(path: Path) -> dict[str, Measured]:
    """Return the figures by service that `python -m perf` has written.

    Raises:
        DefinitionError: the file can't be read, or isn't such a file.
    """
    from fastserve.plan.capacity import Measured

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        source = f"measured, {path.name} of {str(document.get('date', 'no date'))[:10]}"
        return {
            str(entry["name"]): Measured(
                cpu_us=_above_zero(entry["cpu_us_per_request"]),
                source=source,
                store_bytes=_above_zero(entry["store_bytes_per_request"]),
                answer_bytes=_above_zero(entry["response_bytes"]),
            )
            for entry in document["services"]
        }
    except OSError as error:
        raise DefinitionError(f"--measured {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(
            f"--measured {path}: expected what `python -m perf … --json FILE` writes: {str(error)[:64]}"
        ) from None


def _above_zero(value: object) -> float:
    number = float(str(value))
    if not 0 < number < math.inf:
        raise ValueError(f"expected a number above 0, got {shown(value)}")
    return number


def _number(minimum: float, maximum: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(
                f"expected a number from {minimum:g} to {maximum:g}, got {shown(text)}"
            )
        return value

    return number
