"""`fastserve serve`: settings and a feature repo in, a running server out.

All that can be wrong before the first request is found before a worker is forked: the definitions, the
store's URL, credentials and region, the port.

Invariants
1. The process that forks workers has opened no store and run no event loop: whether the store opens is tried
   in a child.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastserve.cli.child import run_in_child
from fastserve.cli.flags import CLIENT_VARIABLES, Subparsers, add_command, add_settings, load_settings
from fastserve.cli.materialize import cpus
from fastserve.config import Settings, unknown_variables
from fastserve.errors import DefinitionError

if TYPE_CHECKING:
    from fastserve.server.options import ServerOptions

CANNOT_LISTEN = 1
LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
ADDRESS_HINT = "choose it by --port N or FASTSERVE_PORT, --host ADDRESS or FASTSERVE_HOST"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", run, "answer feature requests over HTTP until told to stop")
    add_settings(parser)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings(arguments, environ)
    for variable in unknown_variables(environ):
        if variable not in CLIENT_VARIABLES:
            print(f"fastserve: warning: the variable {variable} is no setting's", file=sys.stderr)
    return serve(settings)


def serve(settings: Settings) -> int:
    """Compile the repo, look whether port and store can be had, and serve; return the exit code."""
    from fastserve.cli.workspace import load_workspace
    from fastserve.server import arbiter
    from fastserve.server.boot import make_boot

    start_logging(settings.log_level)
    workspace = load_workspace(settings)
    options = server_options(settings)
    complaint = port_complaint(options)
    if complaint is not None:
        print(f"fastserve: error: {complaint}", file=sys.stderr)
        return CANNOT_LISTEN
    run_in_child(lambda: try_store(settings.store))
    boot = make_boot(settings, workspace.plan, options.workers)
    return arbiter.run(options, boot, boot.before_loop)


def start_logging(level: str) -> None:
    """Log to stderr; of the AWS libraries only warnings, unless everything is wanted: every worker tells."""
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    if level != "debug":
        for library in ("aiobotocore", "botocore"):
            logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


def server_options(settings: Settings) -> ServerOptions:
    """Return what the server is told, in its units."""
    from fastserve.server.options import ServerOptions
    from fastserve.wire.http1 import HttpLimits

    return ServerOptions(
        host=settings.host,
        port=settings.port,
        workers=settings.workers or cpus(),
        limits=HttpLimits(body_bytes=settings.body_limit_bytes),
        idle_timeout_s=settings.idle_timeout_ms / 1000,
        header_timeout_s=settings.header_timeout_ms / 1000,
        shutdown_timeout_s=settings.shutdown_timeout_ms / 1000,
    )


def port_complaint(options: ServerOptions) -> str | None:
    """Return why the address can't be listened on, and how to choose another one; None if it can."""
    from fastserve.server.listener import bind_listener

    try:
        bind_listener(options).close()
    except DefinitionError as error:
        return f"{error.message} ({ADDRESS_HINT})"
    return None


def try_store(url: str) -> None:
    """Open the store and close it again.

    Raises:
        DefinitionError: no credentials, no region, a URL that can't be used: the operator's to set.
        StoreError: the store can't be opened for another reason.
    """
    import asyncio

    from fastserve.store.url import open_store

    async def open_and_close() -> None:
        store = await open_store(url)
        await store.close()

    asyncio.run(open_and_close())
