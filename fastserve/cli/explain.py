"""`fastserve explain SERVICE`: what a vector costs, before anybody pays for it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping

from fastserve.cli.flags import Subparsers, add_command, add_settings, load_settings
from fastserve.errors import shown


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "explain", run, "print what a vector of a service costs and is made of")
    parser.add_argument("service", metavar="SERVICE", help="name of the feature service")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--price-per-million-read-units",
        metavar="USD",
        type=_price,
        help="price of a million read request units (default: that of us-east-1, on demand)",
    )
    parser.add_argument(
        "--measured",
        metavar="URL",
        help="add what the server with this admin listener, such as http://127.0.0.1:9090, has measured of "
        "on-demand views",
    )
    add_settings(parser, ("repo", "workspace", "store"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Explain one service."""
    from fastserve.cli.measured import measured_text, measured_views
    from fastserve.cli.workspace import load_workspace
    from fastserve.plan.explain import PRICE_PER_MILLION_READ_UNITS_USD, explain
    from fastserve.plan.explain_text import explain_text

    price = arguments.price_per_million_read_units
    workspace = load_workspace(load_settings(arguments, environ))
    explanation = explain(
        workspace.service(arguments.service),
        PRICE_PER_MILLION_READ_UNITS_USD if price is None else price,
        workspace.stores.unpriced,
    )
    url = arguments.measured
    views = [view.view for view in explanation.computed]
    measured = None if url is None else measured_views(url, views)
    if arguments.json:
        document = explanation.to_json()
        if measured is not None:
            document["measured"] = [each.to_json() for each in measured]
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    print(explain_text(explanation), end="")
    if measured:
        print(f"\n{measured_text(url, measured)}", end="")
    elif measured is not None:
        print(f"\nNothing is measured: {arguments.service} has no on-demand view")
    return 0


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"expected a price in USD, such as 0.125, got {shown(text)}")
    return price
