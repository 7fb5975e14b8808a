"""`fastserve demo`: the flights example materialized, served, asked once, and kept running.

The store is kept for the next start. What needs loops, threads or DuckDB is done in a child, for this process
goes on as the server's arbiter. One more child waits until the server is ready, shows a vector and ends.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import fastserve.cli as package
from fastserve.cli.child import run_in_child
from fastserve.cli.flags import Subparsers, add_command, add_settings, flags_of
from fastserve.cli.get import GET_FEATURES, METADATA, Question, answer_text, ask, server_url
from fastserve.cli.http_call import CallError
from fastserve.cli.materialize import cpus, report_text
from fastserve.cli.serve import CANNOT_LISTEN, port_complaint, serve, server_options
from fastserve.config import SETTINGS, Settings
from fastserve.errors import DefinitionError

if TYPE_CHECKING:
    from fastserve.ingest.registry import Materialized

STORE = "local:.fastserve/demo"
CLOCK = "2013-12-30T12:00:00Z"
QUESTIONS = (
    Question(
        "flights", "flight_delay", {"carrier": "UA", "origin": "EWR", "dest": "IAH", "tailnum": "N14228"}, {}
    ),
    Question("flights", "route_overlap", {"carrier_a": "UA", "carrier_b": "B6"}, {}),
)
# Of the environment only these count: the demo's repo and clock are its own, whatever is set for `serve`.
SETTABLE = ("host", "port", "admin_host", "admin_port", "workers", "store", "log_level")
ASK_EVERY_S = 0.05


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "demo", run, "serve 336,776 real flights from a local store, and show a vector of them"
    )
    add_settings(parser, SETTABLE, {"store": STORE})


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Prepare the store where that isn't done, then serve until told to stop."""
    settings = demo_settings(arguments, environ)
    options = server_options(settings)
    complaint = port_complaint(options)
    if complaint is not None:
        print(f"fastserve: error: {complaint}", file=sys.stderr)
        return CANNOT_LISTEN
    run_in_child(lambda: _prepare(settings))
    url = server_url(settings.host, settings.port)
    arbiter = os.getpid()
    if os.fork() == 0:
        _show_and_leave(url, arbiter, settings)
    return serve(settings)


def demo_settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the demo's server.

    Raises:
        DefinitionError: a value that can't be used, or an installation without the example.
    """
    own = {"repo": str(example_repo()), "clock": CLOCK}
    settable = [setting for setting in SETTINGS if setting.name in SETTABLE]
    variables = {s.variable: environ[s.variable] for s in settable if s.variable in environ}
    flags = own | flags_of(arguments)
    if flags["store"] is None and not variables.get("FASTSERVE_STORE"):
        flags["store"] = STORE
    settings = Settings.load(flags, variables)
    return settings if settings.port else _with_free_port(settings)


def _prepare(settings: Settings) -> None:
    import asyncio

    asyncio.run(prepare(settings))


async def prepare(settings: Settings) -> None:
    """Bring the demo's store up to date; what an earlier start has done is not done again.

    Raises:
        StoreError: the store failed.
    """
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.apply import execute, plan_apply
    from fastserve.ingest.materialize import materialize
    from fastserve.ingest.registry import Registry

    until_ns = settings.clock_ns or 0
    workspace = load_workspace(settings)
    repo = workspace.repo
    store = await workspace.stores.open()
    try:
        plan = await plan_apply(repo, store)
        await execute(plan, store)
        done = await Registry(store, plan.workspace).materialized(list(repo.views))
        again = {change.view for change in plan.changes if change.rematerialize}
        wanted = {view.name: (until_ns, view.layout.schema_id) for view in plan.plans}
        views = [name for name, record in done.items() if name in again or _is_old(record, wanted[name])]
        if views:
            print(
                f"Materializing {len(views)} views of the flights example into {settings.store} …", flush=True
            )
            print(report_text(await materialize(repo, views, store, until_ns=until_ns, parallel=cpus())))
    finally:
        await store.close()


def _is_old(record: Materialized | None, wanted: tuple[int, int]) -> bool:
    return record is None or (record.until_ns, record.schema_id) != wanted


def _with_free_port(settings: Settings) -> Settings:
    """Choose a port for ``--port 0`` beforehand, so that it is known whom to ask."""
    import socket
    from dataclasses import replace

    with socket.create_server((settings.host, 0)) as probe:
        return replace(settings, port=probe.getsockname()[1])


def example_repo() -> Path:
    """Return the folder of the flights example: an installed package carries it, a checkout has it beside."""
    root = Path(package.__file__).resolve().parent.parent
    for folder in (root / "_examples" / "flights", root.parent / "examples" / "flights"):
        if folder.is_dir():
            return folder
    raise DefinitionError("demo: expected the flights example beside the package, found none")


def curl_command(url: str, question: Question) -> str:
    """Return a command that asks for a vector of the demo; it can be pasted into a shell."""
    body = question.body(metadata=METADATA[:1])
    return f"curl -s {url}{GET_FEATURES} -d {shlex.quote(body)}"


def _show_and_leave(url: str, arbiter: int, settings: Settings) -> NoReturn:
    """In a child: show a vector once the server is ready, and leave the process."""
    try:
        if _is_ready(url, arbiter):
            shown = [_shown(url, question) for question in QUESTIONS]
            last = f"Serving on {url} until Ctrl-C."
            print("\n".join([*shown, *console_lines(settings), last]), flush=True)
    except CallError as error:
        print(f"fastserve: error: {error}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001 - a child that returned would go on as a second arbiter
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def console_lines(settings: Settings) -> list[str]:
    """Return where the demo's console is, if it has one whose port is known."""
    if not settings.admin_port:  # none, or any free one, which the server has printed
        return []
    return [f"Console on {server_url(settings.admin_host, settings.admin_port)}/"]


def _shown(url: str, question: Question) -> str:
    """Return a vector of the demo as a table, and how to ask for it."""
    asked = ", ".join(f"{name} {value}" for name, value in question.join_keys.items())
    lines = [
        "",
        f"{question.service} at {CLOCK} for {asked}:",
        "",
        answer_text(ask(url, question)),
        "",
        "Ask for it yourself:",
        f"  {curl_command(url, question)}",
        "",
    ]
    return "\n".join(lines)


def _is_ready(url: str, arbiter: int) -> bool:
    """Wait for the server; return whether it got ready before it ended."""
    import time
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    opener = build_opener(ProxyHandler({}))  # a proxy of the environment has no business here
    while os.getppid() == arbiter:
        try:
            with opener.open(f"{url}/readyz", timeout=5) as response:
                if response.status == 200:
                    return True
        except (URLError, OSError):
            time.sleep(ASK_EVERY_S)
    return False
