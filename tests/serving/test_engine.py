from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

import fastserve.serving.engine as engine_module
from fastserve.api.encode import FeaturesEncoder
from fastserve.errors import StoreError
from fastserve.plan.keys import string_text
from fastserve.plan.service import WorkspacePlan
from fastserve.sdk.features import Aggregate
from fastserve.sdk.types import Field, Float64
from fastserve.serving.columns import Columns
from fastserve.serving.engine import MAX_LINES_AT_ONCE, Engine
from fastserve.serving.ready import Turns
from fastserve.serving.requests import SLICE_BYTES, VectorRequest
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from tests.serving.fake_store import FakeStore, number_of
from tests.support.plans import NOW_NS, SHOP, USER, aggregate_view, attribute_view, workspace_plan


def plan_of_three_reads() -> WorkspacePlan:
    text = attribute_view("text", ["d_text", "a_int"])
    number = attribute_view("number", ["b_float"])
    shop = attribute_view("shop", ["a_int", "d_text"], entities=[SHOP])
    pair = aggregate_view(
        "pair", [Aggregate(Field("amount", Float64), "sum", timedelta(days=1))], entities=[USER, SHOP]
    )
    payee = text[["d_text"]].with_name("payee").with_join_key_map({"user_id": "payee_id"})
    return workspace_plan({"all": [text, number, shop, pair, payee], "user": [text]})


class Owner:
    """Takes what an engine says about a request, and encodes it at once."""

    def __init__(self, encoder: FeaturesEncoder) -> None:
        self.encoder = encoder
        self.vectors: list[list[Any]] = []
        self.reports: list[Any] = []
        self.told: list[str] = []
        self.on_part: Callable[[], None] = lambda: None

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        self.told.append(f"{last - first} lines")
        self.vectors += [orjson.loads(self.encoder.encode(columns, line)) for line in range(first, last)]
        self.reports.append(columns.report)
        self.on_part()

    def on_timeout(self) -> None:
        self.told.append("timeout")

    def on_failure(self, error: Exception) -> None:
        self.told.append(f"failure: {error}")


class World:
    """An engine over a fake store, with a clock that stands and turns that are taken by hand."""

    def __init__(self, plan: WorkspacePlan | None = None, transport: RowTransport = BASE64_ROWS) -> None:
        self.plan = plan or plan_of_three_reads()
        self.scheduled: list[Callable[[], None]] = []
        self.clocks_ns = [NOW_NS]
        self.now_s = 0.0
        self.engine = Engine(
            self.plan,
            transport,
            schedule=self.scheduled.append,
            clock_ns=lambda: self.clocks_ns[-1],
            turns=Turns(self.scheduled.append, lambda: self.now_s, lambda: self.now_s),
        )
        self.store = FakeStore(self.plan, transport)
        self.engine.attach(self.store.reader)

    def ask(
        self,
        *texts: Sequence[str],
        service: str = "all",
        now_s: float = 0.0,
        timeout_s: float = 2.0,
        zero_counts: bool = False,
        budget: bool = False,
    ) -> tuple[Owner, VectorRequest]:
        runtime = self.engine.services[service]
        owner = Owner(FeaturesEncoder(runtime.plan))
        request = VectorRequest(runtime, owner, now_s + timeout_s, zero_counts=zero_counts, budget=budget)
        self.engine.submit(request, texts, now_s)
        return owner, request

    def turns(self) -> None:
        """Let turns pass until nothing is scheduled."""
        while self.scheduled:
            self.turn()

    def turn(self) -> None:
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for function in scheduled:
            function()

    def expected(self, line: Sequence[str], service: str = "all") -> list[Any]:
        """Return what a vector of the fake store must be, from the key texts of its join keys alone."""
        plan = self.plan.services[service]
        keys = dict(zip([field.name for field in plan.join_keys], line, strict=True))
        of = {
            "text": keys["user_id"],
            "number": keys["user_id"],
            "shop": keys.get("shop_id", ""),
            "payee": keys.get("payee_id", ""),
            "pair": f"{keys['user_id']}|{keys.get('shop_id')}",
        }
        made: dict[str, Callable[[str], Any]] = {
            "a_int": lambda key: str(number_of(key)),
            "b_float": lambda key: number_of(key) / 2,
            "d_text": lambda key: key,
            "amount_sum_1d_1h": lambda key: float(number_of(key)),
        }
        return [made[output.feature](of[output.view]) for output in plan.outputs]


@pytest.fixture
def world() -> World:
    return World()


LINE = ("u1", "7", "u2")


def test_the_service_s_join_keys_are_in_the_order_that_the_tests_take() -> None:
    names = [field.name for field in plan_of_three_reads().services["all"].join_keys]
    assert sorted(names) == ["payee_id", "shop_id", "user_id"]
    assert names == ["user_id", "shop_id", "payee_id"]


@pytest.mark.parametrize("transport", [BASE64_ROWS, RAW_ROWS], ids=["text", "bytes"])
def test_a_request_gets_the_values_of_its_keys(transport: RowTransport) -> None:
    world = World(transport=transport)
    owner, _ = world.ask(LINE)
    assert world.engine.in_flight == 1
    world.turns()
    world.store.answer()
    assert owner.vectors == [world.expected(LINE)]
    assert owner.told == ["1 lines"]
    assert world.engine.in_flight == 0


def test_ten_thousand_requests_with_overlapping_keys_get_exactly_their_own_values(world: World) -> None:
    chance = random.Random(20)
    users = [string_text(f"u|{number}\\") for number in range(200)]
    asked: list[tuple[Owner, tuple[str, ...], str]] = []
    for number in range(10_000):
        if number % 3:
            line: tuple[str, ...] = (chance.choice(users), str(chance.randrange(50)), chance.choice(users))
            asked.append((world.ask(line)[0], line, "all"))
        else:
            line = (chance.choice(users),)
            asked.append((world.ask(line, service="user")[0], line, "user"))
        if chance.random() < 0.03:
            world.turn()
        if 2_000 < number < 8_000 and chance.random() < 0.002:
            world.store.answer_some(chance)
    assert world.engine.in_flight > 1_000
    while world.engine.in_flight:
        world.turn()
        world.store.answer_some(chance)
    for owner, line, service in asked:
        assert owner.vectors == [world.expected(line, service)]
        assert owner.told == ["1 lines"]
    assert all(sum(read.group.size for read in batch) <= 100 for batch in world.store.batches)
    assert world.engine.coalescer.in_flight() == 0


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 100])
def test_a_batch_of_any_length_is_answered_in_order_and_in_parts(world: World, count: int) -> None:
    texts = [(f"u{number}", str(number % 7), "u0") for number in range(count)]
    owner, request = world.ask(*texts)
    single, _ = world.ask(LINE)
    world.turns()
    world.store.answer()
    world.turns()
    assert owner.vectors == [world.expected(line) for line in texts]
    assert single.vectors == [world.expected(LINE)]
    assert request.reads == []
    assert not hasattr(request, "owner")


def test_a_long_request_gives_way_to_the_loop_between_parts_and_keeps_its_moment() -> None:
    world = World()
    runtime = world.engine.services["all"]
    runtime.lines_at_once = 10
    seen: list[int] = []
    evaluate = runtime.evaluator.evaluate

    def noted(lines: Any, now_ns: int, zero_counts: Any = None) -> Columns:
        seen.append(now_ns)
        world.clocks_ns.append(world.clocks_ns[-1] + 1)
        return evaluate(lines, now_ns, zero_counts)

    runtime.evaluator.evaluate = noted  # type: ignore[method-assign]
    owner, _ = world.ask(*[(f"u{number}", "1", "u0") for number in range(70)])
    world.turns()
    world.store.answer()
    assert owner.told == ["10 lines", "10 lines", "10 lines", "2 lines"]
    world.turn()
    assert len(owner.vectors) == 2 * MAX_LINES_AT_ONCE
    world.turn()
    assert len(owner.vectors) == 70
    assert set(seen) == {NOW_NS}


def test_requests_that_are_ready_together_are_evaluated_in_slices(world: World) -> None:
    runtime = world.engine.services["user"]
    assert runtime.lines_at_once == SLICE_BYTES // (runtime.plan.words * 8)
    runtime.lines_at_once = 4
    sizes = [1, 2, 2, 4, 1, 9, 3, 1, 1]
    asked = []
    for number, size in enumerate(sizes):
        texts = [(f"u{number}x{line}",) for line in range(size)]
        asked.append((texts, world.ask(*texts, service="user")[0]))
    world.turns()
    world.store.answer()
    for texts, owner in asked:
        assert owner.vectors == [world.expected(line, "user") for line in texts]
    assert asked[5][1].told == ["4 lines", "4 lines", "1 lines"]


def test_a_request_that_can_t_be_evaluated_fails_alone(world: World) -> None:
    good, _ = world.ask(("u1",), service="user")
    bad, _ = world.ask(("u2",), service="user")
    other, _ = world.ask(("u3",), service="user")
    world.turns()
    for read in world.store.open:
        world.store.fill(read)
        if read.key == "u2":
            read.rows = []  # as no store may
    world.store.settle(world.store.open)
    assert good.vectors == [world.expected(("u1",), "user")]
    assert other.vectors == [world.expected(("u3",), "user")]
    assert len(bad.told) == 1
    assert bad.told[0].startswith("failure: ")
    assert world.engine.in_flight == 0


def test_a_long_request_that_can_t_be_evaluated_is_told_once(world: World) -> None:
    world.engine.services["user"].lines_at_once = 2
    bad, _ = world.ask(*[(f"u{number}",) for number in range(50)], service="user")
    world.turns()
    for read in world.store.open:
        world.store.fill(read)
        if read.key == "u3":
            read.rows = []
    world.store.settle(world.store.open)
    world.turns()
    assert bad.told[0] == "2 lines"
    assert bad.told[1].startswith("failure: ")
    assert len(bad.told) == 2


# --- deadlines -------------------------------------------------------------------------------------------


def test_a_request_times_out_once_and_late_rows_change_nothing(world: World) -> None:
    owner, _ = world.ask(LINE)
    world.turn()
    world.engine.expire(1.999)
    assert owner.told == []
    world.engine.expire(2.0)
    world.engine.expire(3.0)
    world.store.answer()
    assert owner.told == ["timeout"]
    assert world.engine.in_flight == 0


def test_one_request_s_timeout_does_not_end_another_s_wait_for_the_same_key(world: World) -> None:
    early, _ = world.ask(LINE, now_s=0.0)
    world.turn()
    late, _ = world.ask(LINE, now_s=1.0)
    world.engine.expire(2.5)
    assert (early.told, late.told) == (["timeout"], [])
    world.store.answer()
    assert late.vectors == [world.expected(LINE)]


def test_only_what_has_its_deadline_behind_it_expires(world: World) -> None:
    owners = [world.ask((f"u{number}",), service="user", now_s=number)[0] for number in range(5)]
    world.engine.expire(4.0)
    assert [owner.told for owner in owners] == [["timeout"]] * 3 + [[], []]


def test_by_its_budget_a_request_is_answered_with_what_has_come(world: World) -> None:
    owner, request = world.ask(LINE, budget=True, timeout_s=0.05)
    world.turn()
    world.store.answer("u1")
    world.engine.expire(100.0)
    assert owner.told == []
    lacking: list[Any] = []
    owner.on_part = lambda: lacking.append(request.lacking(0, 1))
    world.engine.give_up(request)
    world.engine.give_up(request)
    world.store.answer()
    assert owner.told == ["1 lines"]
    values = dict(zip([o.name for o in world.plan.services["all"].outputs], owner.vectors[0], strict=True))
    assert values == {
        "number.b_float": number_of("u1") / 2,
        "pair.amount_sum_1d_1h": None,
        "payee.d_text": None,
        "shop.a_int": None,
        "shop.d_text": None,
        "text.a_int": str(number_of("u1")),
        "text.d_text": "u1",
    }
    places = {world.plan.services["all"].places[place].view.name for place in lacking[0][0]}
    assert places == {"text", "shop", "pair"}  # the text of the payee, whose number nobody asks for


def test_a_batch_s_budget_gives_each_line_what_has_come(world: World) -> None:
    texts = [(f"u{number}",) for number in range(40)]
    owner, request = world.ask(*texts, service="user", budget=True)
    world.turn()
    world.store.answer(*[f"u{number}" for number in range(0, 40, 2)])
    world.engine.give_up(request)
    world.turns()
    for number, (line, vector) in enumerate(zip(texts, owner.vectors, strict=True)):
        assert vector == ([None, None] if number % 2 else world.expected(line, "user"))


def test_a_request_that_is_answered_can_t_be_given_up(world: World) -> None:
    owner, request = world.ask(("u1",), service="user", budget=True)
    world.turns()
    world.store.answer()
    world.engine.give_up(request)
    assert owner.told == ["1 lines"]


# --- failed reads ----------------------------------------------------------------------------------------


def test_a_failed_read_is_told_by_line_and_place(world: World) -> None:
    world.store.failing["u2"] = StoreError("down")
    owner, request = world.ask(LINE, ("u2", "7", "u1"))
    seen: list[Any] = []
    owner.on_part = lambda: seen.append(request.lacking(0, 2))
    world.turns()
    world.store.answer()
    places = world.plan.services["all"].places
    names = [
        (line, places[place].view.name, read.error.message if read.error else None)
        for line, lacking in seen[0].items()
        for place, read in lacking.items()
    ]
    assert sorted(names) == [(0, "text", "down"), (1, "number", "down"), (1, "text", "down")]
    assert owner.vectors[1][-1] is None
    assert owner.vectors[0][-1] == "u1"


def test_zero_counts_are_for_rows_that_came_and_not_for_those_that_failed() -> None:
    counts = aggregate_view("c", [Aggregate(Field("amount", Float64), "count", timedelta(days=1))])
    world = World(workspace_plan({"counts": [counts]}))
    world.store.failing["u2"] = StoreError("down")
    world.store.rows["w.c", "u1"] = None
    owner, _ = world.ask(("u1",), ("u2",), service="counts", zero_counts=True)
    beside, _ = world.ask(("u1",), service="counts")
    world.turns()
    world.store.answer()
    assert owner.vectors == [["0"], [None]]
    assert beside.vectors == [[None]]


def test_parts_of_a_long_request_know_their_own_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_LINES_AT_ONCE", 3)
    counts = aggregate_view("c", [Aggregate(Field("amount", Float64), "count", timedelta(days=1))])
    world = World(workspace_plan({"counts": [counts]}))
    world.engine.services["counts"].lines_at_once = 2
    world.store.failing["u4"] = StoreError("down")
    for number in range(7):
        world.store.rows["w.c", f"u{number}"] = None
    texts = [(f"u{number}",) for number in range(7)]
    owner, _ = world.ask(*texts, service="counts", zero_counts=True)
    world.turns()
    world.store.answer()
    world.turns()
    assert owner.vectors == [[None] if number == 4 else ["0"] for number in range(7)]
    assert owner.told == ["2 lines", "1 lines", "2 lines", "1 lines", "1 lines"]


def test_requests_that_wait_for_a_turn_after_a_long_one_can_be_given_up(world: World) -> None:
    first, _ = world.ask(("u1",), service="user")
    late, _ = world.ask(("u2",), service="user", timeout_s=1.0)
    patient, _ = world.ask(("u3",), service="user", now_s=1.0)
    first.on_part = lambda: setattr(world, "now_s", world.now_s + 1.0)
    world.turns()
    world.store.answer("u1")
    world.store.answer("u2", "u3")
    assert first.told == ["1 lines"]
    assert world.engine.in_flight == 2

    world.engine.expire(1.5)
    world.turns()

    assert late.told == ["timeout"]
    assert patient.vectors == [world.expected(("u3",), "user")]
    assert world.engine.in_flight == 0
