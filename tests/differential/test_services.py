"""Services of several streamed views, each read under two join keys: every feature is the twin's.

Views have intervals, horizons and blocks of their own; one push goes to all of them. Every vector of a batch
is compared, so that no line or view takes anything from the one beside it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import Attribute, FeatureService, FeatureView, Float64, Int64
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
from fastserve.ingest.registry import Registry
from fastserve.plan.views import plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import USER, Definition, define, push_source, repo_of
from tests.differential.streams import SKEW_NS, StreamModel, record_of
from tests.differential.test_batch import nothing
from tests.differential.twin import DAY_NS, HOUR_NS, RawEvent, agrees
from tests.support.examples import examples
from tests.support.served import Served, Vector, dynamodb_url, serving

KEYS = ("a", "b", "c", "d")
ROWS = 12
"""Lines of one request, more of one entity than there are entities."""


@st.composite
def definitions(draw: st.DrawFn) -> list[Definition]:
    """Views of one source, by secondary key or not."""
    made = []
    for number in range(draw(st.integers(2, 4))):
        rules = draw(drawn.rules())
        one = drawn.wanted(rules, may_have_secondary=False, longest=30)
        asked = draw(st.lists(one, min_size=1, max_size=4))
        if draw(st.integers(0, 3)) == 0:
            asked = drawn.by_secondary_key(asked, draw(drawn.SECONDARY))
        horizon_ns = max(draw(st.sampled_from([HOUR_NS, 7 * HOUR_NS, 2 * DAY_NS])), rules.interval_ns)
        made.append(define(f"view{number}", push_source("pushes", None), rules, asked, horizon_ns))
    source = made[0].view.source
    return [
        define(d.view.name, source, d.rules, _own(d), d.horizon_ns)  # one object is one source
        for d in made
    ]


def _own(definition: Definition) -> dict[str, Any]:
    return {name: w for name, w in definition.asked.items() if w.function != "secondary_keys"}


def repo_of_all(folder: Path, made: Sequence[Definition]) -> Repo:
    """Return a repo with one service that reads all views for a user, the first two for a payee as well."""
    views = [definition.view for definition in made]
    latest = FeatureView(
        "latest", [USER], views[0].source, [Attribute("amount", Float64), Attribute("units", Int64)]
    )
    payee = [
        view.with_name(f"payee_{view.name}").with_join_key_map({"user_id": "payee_id"})
        for view in (*views[:2], latest)
    ]
    repo = repo_of(folder, *made)
    service = FeatureService("all", [*views, latest, *payee])
    services = {**repo.services, "all": service}
    return replace(repo, views={**repo.views, "latest": latest}, services=services)


class World:
    """Views in a store with two workers over it, and a model of each."""

    def __init__(self, made: Sequence[Definition], folder: Path, url: str, data: st.DataObject) -> None:
        self.data = data
        self.now_ns = drawn.T0_NS + data.draw(st.integers(0, 3 * DAY_NS), label="now")
        self.repo, self.url = repo_of_all(folder, made), url
        self.models = {d.view.name: StreamModel(d, self.now_ns) for d in made}
        self.latest: dict[str, RawEvent] = {}
        self.store: OnlineStore
        self.workers: list[Served] = []
        self.complete_ns = dict.fromkeys(self.models, self.now_ns)

    async def push(self) -> None:
        """Push events that all views take."""
        reaches = [model.reach_ns for model in self.models.values()]
        reach_ns = min(5 * DAY_NS, *(reach for reach in reaches if reach is not None), 5 * DAY_NS)
        first_ns, last_ns = self.now_ns - reach_ns, self.now_ns + SKEW_NS
        recent = st.integers(max(first_ns, self.now_ns - HOUR_NS), last_ns)
        times = recent | st.integers(first_ns, last_ns) | st.sampled_from([first_ns, last_ns, self.now_ns])
        one = st.builds(RawEvent, st.sampled_from(KEYS[:3]), times, drawn.columns())
        events = self.data.draw(st.lists(one, min_size=1, max_size=8), label="pushed")
        body = {"records": {"pushes": [{"record": record_of(event)} for event in events]}}
        body["request_id"] = str(len(self.models["view0"].pushed))  # type: ignore[assignment]
        worker = self.workers[self.data.draw(st.integers(0, 1))]
        status, document = await worker.post("/ingest", body, self.now_ns)
        assert status == 200, document
        assert len(document["ingestMetrics"]["featureViewIngestMetrics"]) == len(self.models) + 1
        for model in self.models.values():
            model.pushed += events
        for event in events:
            if event.key not in self.latest or event.time_ns >= self.latest[event.key].time_ns:
                self.latest[event.key] = event

    async def compact(self) -> None:
        """Compact one view."""
        name = self.data.draw(st.sampled_from(sorted(self.models)), label="compacted")
        model = self.models[name]
        if (model.complete_until_ns or 0) > self.now_ns:
            return
        await compact_by_hand(
            [plan_view(model.definition.view, "w", "")],
            self.store,
            Registry(self.store, "w"),
            until_ns=self.now_ns,
            settings=RefreshSettings(progress=False),
            runner=new_runner(lambda: self.now_ns),
        )
        model.make_rows(model.pushed, self.now_ns, forget=True)

    async def advance(self) -> None:
        """Let time pass."""
        self.now_ns += self.data.draw(st.integers(0, HOUR_NS) | st.integers(0, DAY_NS), label="later by")

    async def read(self) -> None:
        """Read rows of any two keys in one request, and two requests at once."""
        pair = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS))
        pairs = self.data.draw(st.lists(pair, min_size=1, max_size=ROWS), label="read")
        worker = self.workers[self.data.draw(st.integers(0, 1))]
        rows = [{"user_id": user, "payee_id": payee} for user, payee in pairs]
        found = await asyncio.gather(
            worker.vectors("all", rows, self.now_ns), worker.vectors("all", rows[::-1], self.now_ns)
        )
        for vectors, asked in zip(found, (pairs, pairs[::-1]), strict=True):
            for (user, payee), vector in zip(asked, vectors, strict=True):
                self.check(vector, "", user)
                self.check(vector, "payee_", payee)

    def check(self, vector: Vector, prefix: str, key: str) -> None:
        """Hold the features of one entity against the models."""
        names = list(self.models) if not prefix else list(self.models)[:2]
        for name in names:
            model = self.models[name]
            expected = model.expected(key, self.now_ns, self.complete_ns[name])
            for feature, want in model.answers(expected).items():
                told = vector.values[f"{prefix}{name}.{feature}"]
                status = vector.statuses[f"{prefix}{name}.{feature}"]
                where = (prefix, name, key, model.definition.asked[feature], self.now_ns, want, told, status)
                if expected.missing:
                    assert (told, status) == (None, "MISSING_DATA"), where
                elif status == "MISSING_DATA":
                    assert told is None, where
                    assert nothing(want), where
                else:
                    assert agrees(want, told), where
        row = self.latest.get(key)
        for column in ("amount", "units"):
            want = None if row is None else row.values[column]
            assert agrees(want, vector.values[f"{prefix}latest.{column}"]), (prefix, key, row)


async def live(world: World, steps: Sequence[str]) -> None:
    """Take steps, and read after each."""
    async with AsyncExitStack() as stack:
        world.store = await open_store(world.url)
        stack.push_async_callback(world.store.close)
        plan = await plan_apply(world.repo, world.store)
        await execute(plan, world.store, clock_ns=lambda: world.now_ns)
        for _ in range(2):
            world.workers.append(await stack.enter_async_context(serving(world.repo, world.url)))
        for step in steps:
            await getattr(world, step)()
            await world.read()


def live_through(folder: Path, url: str, data: st.DataObject) -> None:
    """Draw views and steps, and take them."""
    made = data.draw(definitions())
    kinds = st.sampled_from(["push", "push", "push", "compact", "advance"])
    steps = data.draw(st.lists(kinds, min_size=2, max_size=8), label="steps")
    asyncio.run(live(World(made, folder, url, data), steps))


@settings(deadline=None, max_examples=examples(20))
@given(st.data())
def test_every_view_of_a_service_answers_as_if_it_were_alone(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        live_through(Path(name), f"local:{name}/store?sync=off", data)


@settings(deadline=None, max_examples=examples(3))
@given(st.data())
def test_every_view_of_a_service_answers_as_if_it_were_alone_on_dynamodb(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name, dynamodb_url() as url:
        live_through(Path(name), url, data)
