"""`fastserve serve`: settings and a feature repo in, a running server out.

All that can be wrong before the first request is found before a worker is forked: the definitions, the
store's URL, credentials and region, the port.

Invariants
1. The process that forks workers has opened no store and run no event loop: whether the store opens is tried
   in a child.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fastserve.cli.child import run_in_child
from fastserve.cli.flags import CLIENT_VARIABLES, Subparsers, add_command, add_settings, load_settings
from fastserve.cli.materialize import cpus
from fastserve.config import Settings, unknown_variables
from fastserve.errors import DefinitionError, StoreError

if TYPE_CHECKING:
    import ssl

    from fastserve.plan.service import WorkspacePlan
    from fastserve.server.generation import Definitions
    from fastserve.server.metrics_memory import MetricsMemory
    from fastserve.server.options import ServerOptions
    from fastserve.store.addresses import StoreAddresses
    from fastserve.store.interface import OnlineStore

DESCRIBE_TIMEOUT_S = 5.0
LISTED_AT_MOST = 20
CANNOT_LISTEN = 1
ADMIN_HINT = (
    "choose it by --admin-port N or FASTSERVE_ADMIN_PORT, --admin-host ADDRESS or FASTSERVE_ADMIN_HOST"
)
ADDRESS_HINT = "choose it by --port N or FASTSERVE_PORT, --host ADDRESS or FASTSERVE_HOST"


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", run, "answer feature requests over HTTP until told to stop")
    add_settings(parser)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads settings and definitions anew."""
    settings = load_settings(arguments, environ)
    for variable in unknown_variables(environ):
        if variable not in CLIENT_VARIABLES:
            print(f"fastserve: warning: the variable {variable} is no setting's", file=sys.stderr)
    return serve(settings, lambda: load_settings(arguments, environ))


def serve(settings: Settings, load_again: Callable[[], Settings] | None = None) -> int:
    """Compile the repo, look whether port and store can be had, and serve; return the exit code.

    ``load_again`` gives the settings of a reload; without it there is none.
    """
    from fastserve.cli.workspace import load_workspace
    from fastserve.server import arbiter
    from fastserve.server.generation import worker_rows
    from fastserve.server.log_format import start_logging
    from fastserve.server.metrics_memory import MetricsMemory

    start_logging(settings.log_level, settings.log_format)
    workspace = load_workspace(settings)
    complaint = port_complaint(server_options(settings))
    if complaint is not None:
        print(f"fastserve: error: {complaint}", file=sys.stderr)
        return CANNOT_LISTEN
    check_keys(settings)
    tls_context(settings)
    run_in_child(lambda: try_stores(workspace.stores, served_tables(workspace.plan)))
    metrics = MetricsMemory(worker_rows(server_options(settings)))
    first = definitions(settings, workspace.plan, metrics)
    if load_again is None:
        return arbiter.run(first)
    load = load_again

    def reload() -> Definitions:
        again = load()
        check_keys(again)
        # The number of workers stays what it was, and with it the rows of shared memory.
        return definitions(
            replace(again, workers=server_options(settings).workers), load_workspace(again).plan, metrics
        )

    return arbiter.run(first, reload)


def definitions(settings: Settings, plan: WorkspacePlan, metrics: MetricsMemory) -> Definitions:
    """Return what workers are started with; ``metrics`` is the same for all of one server."""
    from fastserve.server.boot import make_boot
    from fastserve.server.generation import Definitions

    options = server_options(settings)
    boot = make_boot(settings, plan, metrics)
    return Definitions(options, boot, boot.before_loop, tls_context(settings))


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what the clients' connections are encrypted with, None where they are plain.

    Raises:
        DefinitionError: certificate, key or authorities can't be used, or one of them is missing.
    """
    from fastserve.server.tls import make_tls_context

    cert, key = settings.tls_cert, settings.tls_key
    if cert is not None and key is not None:
        return make_tls_context(cert, key, settings.tls_client_ca)
    if cert is not None or key is not None:
        has, lacks = ("tls_cert", "tls_key") if key is None else ("tls_key", "tls_cert")
        raise DefinitionError(f"{lacks}: expected beside {has}, got none")
    if settings.tls_client_ca is not None:
        raise DefinitionError("tls_client_ca: expected tls_cert and tls_key beside it, got none")
    return None


def check_keys(settings: Settings) -> None:
    """Look at the file of API keys, if there is one, before a worker is forked.

    Raises:
        DefinitionError: it can't be read or understood.
    """
    from fastserve.server.key_file import read_keys

    if settings.api_keys is not None:
        read_keys(settings.api_keys)


def server_options(settings: Settings) -> ServerOptions:
    """Return what the server is told, in its units."""
    from fastserve.server.options import ServerOptions
    from fastserve.wire.http1 import HttpLimits

    return ServerOptions(
        host=settings.host,
        port=settings.port,
        admin_host=settings.admin_host,
        admin_port=settings.admin_port,
        workers=settings.workers or cpus(),
        limits=HttpLimits(header_bytes=settings.header_limit_bytes, body_bytes=settings.body_limit_bytes),
        body_rate_bytes_per_s=settings.body_rate_bytes_per_s,
        write_timeout_s=settings.write_timeout_ms / 1000,
        idle_timeout_s=settings.idle_timeout_ms / 1000,
        header_timeout_s=settings.header_timeout_ms / 1000,
        shutdown_timeout_s=settings.shutdown_timeout_ms / 1000,
        max_requests=settings.max_requests,
        max_rss_mb=settings.max_rss_mb,
    )


def port_complaint(options: ServerOptions) -> str | None:
    """Return why the address can't be listened on, and how to choose another one; None if it can."""
    from fastserve.server.listener import bind_admin, bind_listener

    try:
        bind_listener(options).close()
    except DefinitionError as error:
        return f"{error.message} ({ADDRESS_HINT})"
    try:
        admin = bind_admin(options)
    except DefinitionError as error:
        return f"{error.message} ({ADMIN_HINT})"
    if admin is not None:
        admin.close()
    return None


def served_tables(plan: WorkspacePlan) -> list[str]:
    """Return the tables that the services read."""
    return sorted({place.view.table for service in plan.services.values() for place in service.places})


def try_stores(where: StoreAddresses, tables: Sequence[str]) -> None:
    """Open the stores, warn of the tables that they lack and close them again.

    A named store that can't be opened is warned of: what the others have can be served.

    Raises:
        DefinitionError: no credentials, no region, a URL that can't be used: the operator's to set.
        StoreError: the main store can't be opened for another reason.
    """
    import asyncio

    from fastserve.store.mixed import MixedStore

    async def open_and_close() -> list[str]:
        store = await where.open(may_lack=True)
        try:
            away = store.lacking if isinstance(store, MixedStore) else {}
            asked = [table for table in tables if where.homes.get(table) not in away]
            return await missing_tables(store, asked)
        finally:
            await store.close()

    lacking: dict[str, list[str]] = {}
    for table in asyncio.run(open_and_close()):
        lacking.setdefault(where.url_of(table), []).append(table)
    for url, names in lacking.items():
        print(f"fastserve: warning: {lacking_text(url, names)}", file=sys.stderr)


async def missing_tables(store: OnlineStore, tables: Sequence[str]) -> list[str]:
    """Return the tables that the store lacks; none where it doesn't tell in time.

    A server may be allowed to read rows and not to describe tables, and a store that is away for a moment is
    no reason not to start.
    """
    import asyncio

    try:
        async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
            found = await store.describe_tables(list(tables))
    except (StoreError, TimeoutError):
        return []
    return [table for table in tables if found[table] is None]


def lacking_text(url: str, tables: Sequence[str]) -> str:
    """Return what to say of tables that aren't there."""
    listed = ", ".join(tables[:LISTED_AT_MOST]) + (", …" if len(tables) > LISTED_AT_MOST else "")
    return f"{url} lacks the tables {listed}: their services answer 503; run `fastserve apply`"
