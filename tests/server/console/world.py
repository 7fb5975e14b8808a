"""A console over the application of the test's own: pages asked as a browser asks them, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from fastserve.config import Settings
from fastserve.plan.service import WorkspacePlan
from fastserve.server.admin import AdminApplication
from fastserve.server.described import describe, show
from fastserve.server.exchange import Exchange
from fastserve.server.feast_handler import counted_services
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.metrics_page import MetricsPage
from fastserve.server.shared_memory import SharedMemory, State
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import Answer, ApplicationWorld, Connection, Readiness

NOW_NS = 10**18


class ConsoleWorld:
    """One worker's admin listener."""

    def __init__(self, plan: WorkspacePlan, settings: Settings | None = None, **world: Any) -> None:
        self.settings = settings or Settings(admin_port=0)
        self.world = ApplicationWorld(plan=plan, **world)
        self.memory = MetricsMemory(2)
        computed = [view.name for service in plan.services.values() for view in service.on_demand]
        self.memory.declare(counted_services(plan), plan.views, computed)
        self.life = SharedMemory(2)
        self.life.workers[0].cells[0] = State.READY
        scheduled: list[Callable[[], None]] = []
        schedule = scheduled.append
        page = MetricsPage(self.memory, self.life, "w", plan.views, lambda: NOW_NS, lambda: None, schedule)
        self.admin = AdminApplication(Readiness())
        described = describe(self.settings, plan)
        show(described, self.admin, page, self.world.application, "http://0.0.0.0:8080")

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        host: bytes | None = b"127.0.0.1:8081",
        content_type: bytes | None = None,
        authorization: bytes | None = None,
        query: str = "",
    ) -> Connection:
        """Hand an exchange to the listener; the answer may come later."""
        head = RequestHead(
            method,
            path,
            query,
            len(body),
            False,
            True,
            False,
            False,
            authorization,
            content_type,
            None,
            None,
            host=host,
        )
        connection = Connection()
        self.admin(Exchange(connection, head, body, self.world.now_s))
        return connection

    def get(self, path: str, **options: Any) -> Answer:
        """Return the answer to a GET."""
        (answer,) = self.send("GET", path, **options).answers
        return answer

    def ask(self, params: dict[str, Any], **options: Any) -> Answer:
        """Try a query, let the store answer, and return the one answer."""
        options = {"content_type": b"application/json", **options}
        connection = self.send("POST", "/console/try", orjson.dumps({"params": params}), **options)
        self.world.turn()
        if not connection.answers:
            self.world.store.answer()
            self.world.turn()
        (answer,) = connection.answers
        return answer
