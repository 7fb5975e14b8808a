"""The application over a fake store and a clock that is set by hand; exchanges without a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from fastserve.plan.service import WorkspacePlan
from fastserve.sdk.features import Aggregate
from fastserve.sdk.row_format import AttributesFormat
from fastserve.sdk.types import Field, Float64
from fastserve.server.application import ApplicationLimits, FeatureApplication
from fastserve.server.exchange import Exchange, Headers
from fastserve.server.key_file import KeyFile
from fastserve.serving.admission import Admission
from fastserve.serving.engine import Engine
from fastserve.serving.items import item_row
from fastserve.serving.on_demand import Surroundings
from fastserve.serving.row_cache import RowCache
from fastserve.serving.transport import BASE64_ROWS
from fastserve.wire.http1 import RequestHead
from fastserve.wire.http1_answer import JSON
from tests.serving.fake_store import FakeStore
from tests.support.plans import NOW_NS, SHOP, TTL, USER, aggregate_view, attribute_view, workspace_plan

V1 = "/api/v1/feature-service/"
V2 = "/api/v2/workspaces/w/feature-services/"
KEYS: dict[str, Any] = {"user_id": "u1", "shop_id": 7}
VALUES = ["30001", 15000.5, "55", "30001", 30001.0]


def application_plan() -> WorkspacePlan:
    profile = attribute_view("profile", ttl=TTL)
    numbers = attribute_view("numbers", ["a_int", "b_float"])
    spending = aggregate_view(
        "spending",
        [
            Aggregate(
                Field("amount", Float64),
                function,
                timedelta(days=1),
                description=f"The {function} of a day",
                tags={"owner": "risk"},
            )
            for function in ("sum", "count")
        ],
    )
    shop = attribute_view("shop", ["a_int"], entities=[SHOP])
    item = attribute_view(
        "item", ["d_text", "a_int"], row_format=AttributesFormat("pk", timestamp_attribute="at")
    )
    return workspace_plan(
        {
            "fraud:v2": [numbers, spending, shop],
            "plain": [numbers],
            "types": [profile],
            "items": [item],
            "days": [attribute_view("days", ["a_int"], entities=[USER, SHOP])],
        }
    )


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: bytes
    headers: dict[bytes, bytes]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Connection:
    """Keeps the answer of its one exchange."""

    answers: list[Answer] = field(default_factory=list)

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        self.answers.append(Answer(status, body, content_type, dict(headers)))

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        self.send_answer(exchange, 200, b"".join(parts), JSON, ())


class Readiness:
    is_ready = True


class ApplicationWorld:
    """Everything between an exchange and the store, turned by hand."""

    def __init__(
        self,
        limits: ApplicationLimits | None = None,
        keys: KeyFile | None = None,
        admission: Admission | None = None,
        ingest: Callable[[Exchange], None] | None = None,
        plan: WorkspacePlan | None = None,
        cache: RowCache | None = None,
    ) -> None:
        self.plan = plan or application_plan()
        self.now_s = 100.0
        self.clock_ns = NOW_NS
        self.scheduled: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.engine = Engine(
            self.plan,
            BASE64_ROWS,
            schedule=self.scheduled.append,
            clock_ns=lambda: self.clock_ns,
            transcode_item=item_row,
            surroundings=Surroundings(lambda: int(self.now_s * 1e9)),
        )
        self.store = FakeStore(self.plan)
        self.engine.attach(self.store.reader, cache)
        self.readiness = Readiness()
        self.application = FeatureApplication(
            "w",
            self.engine,
            self.readiness,
            lambda: self.now_s,
            self._call_later,
            limits,
            ingest,
            keys=keys,
            admission=admission,
        )

    def _call_later(self, delay_s: float, function: Callable[..., None], *arguments: Any) -> None:
        self.timers.append((self.now_s + delay_s, function, arguments))

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        authorization: bytes | None = None,
        timeout_ms: bytes | None = None,
        accept: bytes | None = None,
    ) -> Connection:
        """Hand an exchange to the application; the answer may come later."""
        head = RequestHead(
            method, path, "", len(body), False, True, False, False, authorization, None, accept, timeout_ms
        )
        connection = Connection()
        self.application(Exchange(connection, head, body, self.now_s))
        return connection

    def turn(self) -> None:
        while self.scheduled:
            scheduled, self.scheduled[:] = list(self.scheduled), []
            for function in scheduled:
                function()

    def wait(self, seconds: float) -> None:
        """Let time pass: timers go off, the server timeout is looked at."""
        self.now_s += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now_s]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_s]
        for _, function, arguments in due:
            function(*arguments)
        self.engine.expire(self.now_s)
        self.turn()

    def ask(self, method: str, path: str, body: bytes = b"", accept: bytes | None = None) -> Answer:
        """Send, let the store answer, and return the one answer."""
        connection = self.send(method, path, body, accept=accept)
        self.turn()
        if not connection.answers:
            self.now_s += 0.004
            self.store.answer()
            self.turn()
        (answer,) = connection.answers
        return answer

    def post(self, action: str, **params: Any) -> Answer:
        return self.ask("POST", V1 + action, orjson.dumps({"params": params}))

    def features(self, service: str, keys: dict[str, Any], **params: Any) -> Answer:
        return self.post("get-features", featureServiceName=service, joinKeyMap=keys, **params)

    def batch(self, service: str, keys: list[dict[str, Any]], **params: Any) -> Answer:
        rows = [{"join_key_map": each} for each in keys]
        return self.post("get-features-batch", featureServiceName=service, request_data=rows, **params)


def is_refused(answer: Answer, status: int, code: int, message: str) -> None:
    assert answer.status == status
    assert answer.json == {"error": message, "message": message, "code": code}
    assert answer.content_type == b"application/json"
