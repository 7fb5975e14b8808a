"""Services that read two stores: one of text and one of bytes, each with calls of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fastserve.api.encode import FeaturesEncoder
from fastserve.errors import StoreError
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.plan.stores import TablePrefixes
from fastserve.sdk.repo import Repo
from fastserve.sdk.service import FeatureService
from fastserve.serving.coalescer import Coalescer
from fastserve.serving.engine import Engine
from fastserve.serving.on_demand import Surroundings
from fastserve.serving.requests import VectorRequest
from fastserve.serving.row_cache import RowCache
from fastserve.serving.stores import MIXED_ROWS, StoreCoalescers, StoreTransports
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS
from tests.serving.fake_store import FakeStore, number_of
from tests.serving.test_engine import Owner
from tests.support.plans import NOW_NS, SHOP, attribute_view

TRANSPORTS = StoreTransports(BASE64_ROWS, {"hot": RAW_ROWS, "twin": BASE64_ROWS})


def plan_of_two_stores(cache_ttl: timedelta | None = None) -> WorkspacePlan:
    main = attribute_view("main", ["a_int", "d_text"])
    stale_ttl = None if cache_ttl is None else timedelta(hours=1)
    hot = attribute_view("hot", ["b_float", "d_text"], store="hot", cache_ttl=cache_ttl, stale_ttl=stale_ttl)
    shop = attribute_view("shop", ["a_int"], entities=[SHOP], store="hot")
    services = {
        "both": FeatureService("both", features=[main, hot, shop]),
        "main": FeatureService("main", features=[main]),
        "hot": FeatureService("hot", features=[hot]),
    }
    views = {view.name: view for view in (main, hot, shop)}
    return plan_workspace(Repo(Path(), "w", {}, {}, views, services, {}), TablePrefixes("", {"hot": ""}))


class World:
    """An engine over two fake stores that answer when they are told to."""

    def __init__(self, cache_ttl: timedelta | None = None) -> None:
        self.plan = plan_of_two_stores(cache_ttl)
        self.scheduled: list[Callable[[], None]] = []
        self.now_s = 0
        self.engine = Engine(
            self.plan,
            TRANSPORTS,
            schedule=self.scheduled.append,
            clock_ns=lambda: NOW_NS,
            surroundings=Surroundings(lambda: self.now_s * 10**9),
        )
        cache = None if cache_ttl is None else RowCache(1 << 20)
        self.main = FakeStore(self.plan, BASE64_ROWS)
        self.hot = FakeStore(self.plan, RAW_ROWS, max_keys=500)
        self.engine.attach(self.main.reader, cache, {"hot": self.hot.reader})

    def ask(self, *texts: str, service: str = "both") -> tuple[Owner, VectorRequest]:
        runtime = self.engine.services[service]
        owner = Owner(FeaturesEncoder(runtime.plan))
        request = VectorRequest(runtime, owner, 2.0, zero_counts=False, budget=False)
        self.engine.submit(request, [texts], 0.0)
        return owner, request

    def turns(self) -> None:
        while self.scheduled:
            scheduled, self.scheduled[:] = list(self.scheduled), []
            for function in scheduled:
                function()

    def answer(self, store: FakeStore) -> None:
        reads, store.open[:] = list(store.open), []
        for read in reads:
            store.fill(read)
        store.settle(reads)


def vector(world: World, service: str, user: str, shop: str = "") -> list[Any]:
    made = {
        "main.a_int": str(number_of(user)),
        "main.d_text": user,
        "hot.b_float": number_of(user) / 2,
        "hot.d_text": user,
        "shop.a_int": str(number_of(shop)),
    }
    return [made[output.name] for output in world.plan.services[service].outputs]


def keys_of(world: World, user: str, shop: str) -> list[str]:
    values = {"user_id": user, "shop_id": shop}
    return [values[field.name] for field in world.plan.services["both"].join_keys]


def test_a_request_is_answered_when_the_last_of_its_stores_has() -> None:
    for order in ("main", "hot"), ("hot", "main"):
        world = World()
        owner, _ = world.ask(*keys_of(world, "u1", "s1"))
        world.turns()
        world.answer(getattr(world, order[0]))
        assert owner.vectors == []
        world.answer(getattr(world, order[1]))
        assert owner.vectors == [vector(world, "both", "u1", "s1")]


def test_each_store_s_calls_hold_its_own_keys_alone_and_all_of_them() -> None:
    world = World()
    owners = [world.ask(*keys_of(world, f"u{number}", f"s{number}"))[0] for number in range(150)]
    world.turns()
    assert [len(batch) for batch in world.main.batches] == [100, 50]
    assert [len(batch) for batch in world.hot.batches] == [300]
    assert {read.group.store for batch in world.hot.batches for read in batch} == {"hot"}
    coalescer = world.engine.coalescer
    assert isinstance(coalescer, StoreCoalescers)
    assert coalescer.in_flight() == 450
    counted = {name: (one.calls, one.keys) for name, one in world.engine.coalescers.items()}
    assert counted == {"": (2, 150), "hot": (1, 300)}
    world.answer(world.main)
    world.answer(world.hot)
    assert [owner.vectors[0] for owner in owners] == [
        vector(world, "both", f"u{number}", f"s{number}") for number in range(150)
    ]
    assert coalescer.in_flight() == 0
    assert [one.joined for one in world.engine.coalescers.values()] == [0, 0]


def test_a_store_that_does_not_answer_holds_up_only_the_services_that_read_it() -> None:
    world = World()
    both, _ = world.ask(*keys_of(world, "u1", "s1"))
    main, _ = world.ask("u2", service="main")
    hot, _ = world.ask("u3", service="hot")
    world.turns()
    world.answer(world.main)
    assert main.vectors == [vector(world, "main", "u2")]
    assert (both.told, hot.told) == ([], [])
    world.engine.expire(3.0)
    assert (both.told, hot.told) == (["timeout"], ["timeout"])
    world.answer(world.hot)  # late: nobody is told again
    assert both.told == ["timeout"]


def test_a_failed_read_of_one_store_is_the_request_s_own_affair() -> None:
    world = World()
    world.hot.failing["u1"] = StoreError("gone")
    both, _ = world.ask(*keys_of(world, "u1", "s1"))
    main, _ = world.ask("u1", service="main")
    world.turns()
    world.answer(world.hot)
    world.answer(world.main)
    assert main.vectors == [vector(world, "main", "u1")]
    assert both.told == ["1 lines"]
    found = dict(
        zip([output.name for output in world.plan.services["both"].outputs], both.vectors[0], strict=True)
    )
    assert found == {
        "main.a_int": str(number_of("u1")),
        "main.d_text": "u1",
        "hot.b_float": None,
        "hot.d_text": None,
        "shop.a_int": str(number_of("s1")),
    }


def test_text_that_is_no_row_is_one_row_s_fault() -> None:
    world = World()
    tables = {view.name: view.table for view in world.plan.views.values()}
    world.main.rows[tables["main"], "bad"] = "%%%"
    owners = [world.ask(*keys_of(world, user, "s1"))[0] for user in ("bad", "good")]
    world.turns()
    world.answer(world.main)
    world.answer(world.hot)
    assert owners[1].vectors == [vector(world, "both", "good", "s1")]
    (reason,) = owners[0].reports[0].unreadable.values()
    assert "base64" in reason.lower() or "padding" in reason.lower() or "character" in reason.lower()


def test_services_of_one_form_keep_it_and_only_mixed_ones_are_decoded() -> None:
    assert TRANSPORTS.of({""}) is TRANSPORTS.of({"twin"}) is TRANSPORTS.of({"", "twin"}) is BASE64_ROWS
    assert TRANSPORTS.of({"hot"}) is RAW_ROWS
    assert TRANSPORTS.of({"hot", "twin"}) is MIXED_ROWS
    assert TRANSPORTS.of(()) is BASE64_ROWS
    assert MIXED_ROWS.unwrap("AAAA") == MIXED_ROWS.unwrap(b"\0\0\0") == b"\0\0\0"
    with pytest.raises(ValueError):
        MIXED_ROWS.unwrap("%")


def test_a_workspace_of_one_store_has_the_plain_coalescer() -> None:
    engine = World().engine
    engine.attach(World().main.reader)
    assert type(engine.coalescer) is Coalescer


def test_a_kept_row_stands_in_for_a_failed_store_also_where_another_store_answers_last() -> None:
    world = World(timedelta(seconds=1))
    expected = vector(world, "both", "u1", "s1")
    for failing, order in ((False, ("main", "hot")), (True, ("hot", "main")), (True, ("main", "hot"))):
        world.now_s += 60  # older than the cache_ttl, not than the stale_ttl
        if failing:
            world.hot.failing["u1"] = StoreError("gone", retryable=True)
        owner, _ = world.ask(*keys_of(world, "u1", "s1"))
        world.turns()
        for name in order:
            world.answer(getattr(world, name))
        assert owner.vectors == [expected]
