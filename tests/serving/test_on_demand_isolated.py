"""Isolated views over helpers that answer when they are told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fastserve import Attribute, Calculation, Field, Float64, Int64, RequestSource, on_demand_feature_view
from fastserve.errors import InvariantError
from fastserve.sdk.on_demand import OnDemandFeatureView, RequestContext
from fastserve.serving.on_demand import Done, Job, Outcome, Raised, Stopped
from fastserve.serving.on_demand_call import compile_call
from tests.serving.on_demand_world import OnDemandWorld
from tests.support.plans import attribute_view

View = OnDemandFeatureView[..., Any]
request = RequestSource(schema=[Field("n", Int64)])


class FakeHelpers:
    """Runs calls in this process, when and in the order in which it is told to."""

    def __init__(self) -> None:
        self.open: list[tuple[Job, Callable[[Outcome], None]]] = []
        self.jobs: list[Job] = []
        self.views: dict[str, View] = {}

    def submit(self, job: Job, on_done: Callable[[Outcome], None]) -> None:
        self.jobs.append(job)
        self.open.append((job, on_done))

    def answer(self, outcome: Outcome | None = None, chance: random.Random | None = None) -> None:
        """End what is open, by running it or with this outcome."""
        ready, self.open = self.open, []
        if chance is not None:
            chance.shuffle(ready)
        for job, on_done in ready:
            on_done(outcome or self.run(job))

    def run(self, job: Job) -> Outcome:
        call = compile_call(self.views[job.view])
        assert call is not None
        moment = RequestContext(job.moment)
        try:
            if job.lines is None:
                return Done(call.line_caller(moment)(*job.sources), 5)
            return Done(call.batch_caller(moment)(job.lines, job.sources), 5)
        except Exception as error:  # noqa: BLE001 - as a helper does
            return Raised(type(error).__name__, str(error), "Traceback …", 5)


def world_of(*features: Any) -> tuple[OnDemandWorld, FakeHelpers]:
    helpers = FakeHelpers()
    world = OnDemandWorld(features, helpers=helpers)
    helpers.views = {view.name: view.view for view in world.service.on_demand}
    return world, helpers


def next_of_one(source: dict[str, Any]) -> dict[str, Any]:
    if source["n"] == 13:
        raise ValueError("thirteen")
    return {"next": source["n"] + 1}


def next_of_columns(source: dict[str, Any]) -> dict[str, Any]:
    if (source["n"] == 13).any():
        raise ValueError("thirteen")
    return {"next": source["n"] + 1}


def next_view(mode: Any, **more: Any) -> View:
    function = next_of_one if mode == "python" else next_of_columns
    return on_demand_feature_view(
        sources=[request],
        features=[Attribute("next", Int64), Calculation("half", "n / 2")],
        mode=mode,
        name="following",
        isolation="process",
        **more,
    )(function)


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_requests_are_answered_when_their_calls_have_come_back(mode: Any) -> None:
    world, helpers = world_of(next_view(mode))
    askers = [world.ask(contexts=[{"n": number}]) for number in range(5)]
    world.turn()
    assert len(helpers.jobs) == (5 if mode == "python" else 1)
    assert not askers[0].told
    assert world.engine.in_flight == 5
    world.clock_ns = 7_000_000
    helpers.answer(chance=random.Random(1))
    assert [asker.vectors for asker in askers] == [[[str(n + 1), n / 2]] for n in range(5)]
    assert world.engine.in_flight == 0
    assert askers[0].waits_s == [0.007]
    stats = world.times.stats()["following"]
    assert (stats.lines, stats.max_ns) == (5, 5)


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_a_call_that_raises_fails_its_own_request(mode: Any) -> None:
    world, helpers = world_of(next_view(mode))
    askers = [world.ask(contexts=[{"n": number}]) for number in (12, 13, 14, 15, 16)]
    world.turn()
    while helpers.open:
        helpers.answer()
    vectors = [asker.vectors[0] for asker in askers]
    assert vectors.pop(1) == "400 ValueError: thirteen (when evaluating UDF following)"
    assert [vector[0] for vector in vectors] == ["13", "15", "16", "17"]
    assert world.complaints == [("following", "Traceback …")]


@pytest.mark.parametrize(
    "outcome, message",
    [
        (
            Stopped(None, is_limit=True),
            "504 On-demand view `following` took longer than its limit of 10 ms: it was stopped",
        ),
        (
            Stopped(None, is_limit=False),
            "504 On-demand view `following` was not computed within the request's time",
        ),
        (Stopped("its process ended", is_limit=False), "503 On-demand view `following`: its process ended"),
    ],
    ids=["limit", "deadline", "death"],
)
def test_a_call_that_was_ended_is_refused(outcome: Stopped, message: str) -> None:
    world, helpers = world_of(next_view("python", time_limit=timedelta(milliseconds=10)))
    asker = world.ask(contexts=[{"n": 1}])
    world.turn()
    (job,) = helpers.jobs
    assert (job.limit_s, job.deadline_s) == (0.01, 2.0)
    helpers.answer(outcome)
    assert asker.vectors == [message]


def test_views_behind_an_isolated_one_follow_when_it_is_done_and_two_isolated_ones_take_turns() -> None:
    following = next_view("numpy")

    @on_demand_feature_view(sources=[following], features=[Attribute("twice", Int64)])
    def doubled(before: dict[str, Any]) -> dict[str, Any]:
        return {"twice": before["next"] * 2}

    @on_demand_feature_view(
        sources=[doubled, request], features=[Attribute("sum", Int64)], isolation="process"
    )
    def summed(before: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        return {"sum": before["twice"] + asked["n"]}

    world, helpers = world_of(summed)
    asker = world.ask(contexts=[{"n": 1}, {"n": 13}, {"n": 3}])
    world.turn()
    while helpers.open:
        helpers.answer()
    assert asker.vectors == [["5"], "400 ValueError: thirteen (when evaluating UDF following)", ["11"]]
    assert [job.view for job in helpers.jobs][-2:] == ["summed", "summed"]


def test_after_the_latency_budget_this_view_and_those_behind_it_are_late() -> None:
    following = next_view("python")
    text = attribute_view("text", ["a_int"])

    @on_demand_feature_view(sources=[request], features=[Attribute("same", Int64)])
    def earlier(asked: dict[str, Any]) -> dict[str, Any]:
        return {"same": asked["n"]}

    @on_demand_feature_view(sources=[following], features=[Attribute("twice", Int64)])
    def later(before: dict[str, Any]) -> dict[str, Any]:
        return {"twice": before["next"] * 2}

    world, helpers = world_of(earlier, following, later, text)
    asker = world.ask(["u1"], contexts=[{"n": 1}], budget=True)
    world.settle()
    numbers = {view.name: number for number, view in enumerate(world.service.on_demand)}
    helpers.answer(Stopped(None, is_limit=False))
    (vector,) = asker.vectors
    late = {numbers["following"], numbers["later"]}
    if numbers["earlier"] > numbers["following"]:
        late.add(numbers["earlier"])
    assert asker.late == [late]
    assert vector[1:4] == [None, None, None]
    assert vector[4] is not None


def test_a_request_whose_lines_have_all_failed_asks_no_helper() -> None:
    @on_demand_feature_view(sources=[request], features=[Attribute("x", Float64)])
    def failing(asked: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("no")

    @on_demand_feature_view(sources=[failing], features=[Attribute("y", Float64)], isolation="process")
    def behind(before: dict[str, Any]) -> dict[str, Any]:
        return {"y": before["x"]}

    world, helpers = world_of(behind)
    asker = world.ask(contexts=[{"n": 1}])
    world.turn()
    assert not helpers.jobs
    assert asker.vectors == ["400 KeyError: 'no' (when evaluating UDF failing)"]


def test_a_helper_that_cannot_be_asked_fails_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    world, helpers = world_of(next_view("python"))

    def broken(_job: Job, _on_done: Callable[[Outcome], None]) -> None:
        raise OSError("no more")

    monkeypatch.setattr(helpers, "submit", broken)
    asker = world.ask(contexts=[{"n": 1}])
    world.turn()
    assert asker.told == ["failure: OSError('no more')"]
    assert world.engine.in_flight == 0


def test_an_isolated_view_needs_helpers() -> None:
    with pytest.raises(InvariantError):
        OnDemandWorld([next_view("python")])
