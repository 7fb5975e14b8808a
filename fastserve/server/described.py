"""What a server says of itself: its OpenAPI document and its console, made once, before the fork.

Invariants
1. Both are bytes when a request comes; workers share them.
2. Where there is no admin listener no page is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic, time_ns

from fastserve.api.openapi import About, openapi_at, openapi_json
from fastserve.config import Settings
from fastserve.plan.service import WorkspacePlan
from fastserve.server.admin import AdminApplication
from fastserve.server.application import OPENAPI
from fastserve.server.console.live import LiveNumbers
from fastserve.server.console.pages import FRESH, ConsolePages, add_console, console_pages
from fastserve.server.exchange import Application
from fastserve.server.feast_handler import counted_services
from fastserve.server.metrics_page import MetricsPage, version_text
from fastserve.tiles.times import format_time
from fastserve.tiles.windows import SECOND_NS

_ANYWHERE = (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:"))


@dataclass(frozen=True, slots=True)
class Described:
    """The document of the clients' port, and what the admin listener shows, if there is one."""

    plan: WorkspacePlan
    about: About
    openapi: bytes
    console: ConsolePages | None


def describe(settings: Settings, plan: WorkspacePlan) -> Described:
    """Make both, of a server with these settings."""
    now_ns = time_ns() if settings.clock_ns is None else settings.clock_ns
    time = format_time(now_ns // SECOND_NS * SECOND_NS)
    about = About(version_text(), settings.api_keys is not None, settings.max_batch_rows, time)
    console = None
    if settings.admin_port is not None:
        console = console_pages(plan, settings, about.version, time)
    return Described(plan, about, openapi_json(plan, about), console)


def show(
    described: Described,
    admin: AdminApplication,
    metrics: MetricsPage,
    application: Application,
    serving_url: str,
) -> None:
    """Add document and console to a worker's admin listener; ``application`` answers clients."""
    url = reachable(serving_url)
    openapi = openapi_at(described.openapi, url)
    admin.add(OPENAPI, lambda exchange: exchange.respond(200, openapi))
    if described.console is not None:
        plan = described.plan
        computed = {view.name for service in plan.services.values() for view in service.on_demand}
        live = LiveNumbers(metrics, counted_services(plan), computed, url, monotonic, FRESH)
        add_console(admin, described.console, live, application)


def reachable(url: str) -> str:
    """Return a URL under which this machine reaches a server that listens on all of its addresses."""
    for anywhere, here in _ANYWHERE:
        url = url.replace(anywhere, here)
    return url
