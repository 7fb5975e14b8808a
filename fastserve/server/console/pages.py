"""All pages of the console for one plan, and where they are found: made once, before the fork.

Workers share the bytes, so that a page costs a request to the admin listener one look-up and one write. Every
answer forbids the browser to fetch from anywhere else, and to be framed.

Invariants
1. Pages are functions of plan, settings and the package's own files; nothing is rendered for a request.
2. Where the listener's address is a loopback one, only requests that name such a host are answered: a page of
   elsewhere can't have its own name lead here.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from fastserve.config import Settings
from fastserve.errors import RequestError, shown
from fastserve.plan.explain import explain
from fastserve.plan.service import WorkspacePlan
from fastserve.server.admin import AdminApplication, Page
from fastserve.server.console.layout import Frame
from fastserve.server.console.overview import overview
from fastserve.server.console.service_page import service_page
from fastserve.server.console.trial import PATH as TRY
from fastserve.server.console.trial import Policy, Trial, is_loopback, policy_of
from fastserve.server.console.view_page import on_demand_page, view_page
from fastserve.server.exchange import Application, Exchange, Headers
from fastserve.store.addresses import addresses

SERVICES = "/console/services/"
VIEWS = "/console/views/"
LIVE = "/console/live.json"
HTML = b"text/html; charset=utf-8"
FILES: Mapping[str, bytes] = MappingProxyType(
    {
        "console.css": b"text/css; charset=utf-8",
        "console.js": b"text/javascript; charset=utf-8",
        "icon.svg": b"image/svg+xml",
    }
)
_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
GUARDS: Headers = (
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)
FRESH: Headers = (*GUARDS, (b"Cache-Control", b"no-store"))
KEPT: Headers = (*GUARDS, (b"Cache-Control", b"public, max-age=31536000, immutable"))


@dataclass(frozen=True, slots=True)
class ConsolePages:
    """The console of one plan, as bytes; ``assets`` changes with its files."""

    assets: str
    overview: bytes
    services: Mapping[str, bytes]
    views: Mapping[str, bytes]
    files: Mapping[str, bytes]
    policy: Policy
    only_local: bool


def console_pages(plan: WorkspacePlan, settings: Settings, version: str, example_time: str) -> ConsolePages:
    """Render everything."""
    files = {name: (Path(__file__).parent / name).read_bytes() for name in FILES}
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
    frame = Frame(plan.workspace, version, digest)
    policy = policy_of(settings)
    unpriced = addresses(settings.store, settings.stores, plan.homes).unpriced
    costs = {name: explain(service, unpriced=unpriced) for name, service in plan.services.items()}
    return ConsolePages(
        digest,
        overview(frame, plan, costs),
        {
            name: service_page(frame, service, costs[name], policy, example_time)
            for name, service in plan.services.items()
        },
        _view_pages(frame, plan),
        files,
        policy,
        is_loopback(settings.admin_host),
    )


def _view_pages(frame: Frame, plan: WorkspacePlan) -> dict[str, bytes]:
    readers: dict[str, list[str]] = {}
    computed = {}
    for name, service in plan.services.items():
        for view in dict.fromkeys(place.view.name for place in service.places):
            readers.setdefault(view, []).append(name)
        for each in service.on_demand:
            computed[each.name] = each.view
            readers.setdefault(each.name, []).append(name)
    pages = {name: view_page(frame, view, readers.get(name, ())) for name, view in plan.views.items()}
    return pages | {name: on_demand_page(frame, view, readers[name]) for name, view in computed.items()}


def add_console(admin: AdminApplication, pages: ConsolePages, live: Page, application: Application) -> None:
    """Add the console to the admin listener; queries go to ``application``."""
    guarded = _guard(pages)
    admin.add("/", guarded(lambda exchange: exchange.respond(200, pages.overview, HTML, FRESH)))
    admin.add(f"{SERVICES}*", guarded(_named(pages.services, SERVICES, "feature service")))
    admin.add(f"{VIEWS}*", guarded(_named(pages.views, VIEWS, "view")))
    admin.add(LIVE, guarded(live))
    admin.add(TRY, guarded(Trial(application, pages.policy, FRESH)), ("POST",))
    for name, content in pages.files.items():
        admin.add(f"/console/{name}", guarded(_file(content, FILES[name], f"v={pages.assets}")))


def _file(content: bytes, content_type: bytes, query: str) -> Page:
    """Return what answers a file, to be kept for ever if it is asked for by the query that its pages have.

    A server that is being replaced may be asked for the files of its successor's pages.
    """

    def answer(exchange: Exchange) -> None:
        exchange.respond(200, content, content_type, KEPT if exchange.query == query else FRESH)

    return answer


def _named(pages: Mapping[str, bytes], prefix: str, what: str) -> Page:
    def answer(exchange: Exchange) -> None:
        name = unquote(exchange.path[len(prefix) :])
        found = pages.get(name)
        if found is None:
            raise RequestError(404, f"Unknown {what} {shown(name)}")
        exchange.respond(200, found, HTML, FRESH)

    return answer


def _guard(pages: ConsolePages) -> Callable[[Page], Page]:
    def guarded(page: Page) -> Page:
        def answer(exchange: Exchange) -> None:
            host = exchange.host
            if host is not None and not is_local_host(host):
                got = shown(host.decode("latin-1"))
                raise RequestError(403, f"Expected the name or address of this machine in Host, got {got}")
            page(exchange)

        return answer

    return guarded if pages.only_local else lambda page: page


def is_local_host(host: bytes | None) -> bool:
    """Whether a Host header names this machine: an address in digits, or localhost."""
    if host is None:
        return True  # HTTP/1.0, which no browser speaks
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
