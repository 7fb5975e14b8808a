"""Views with a cache_ttl: what is served out of a worker's memory, and what in place of a failing store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve import Attribute, FeatureView, Field, Int64, PushSource
from fastserve.errors import StoreError
from fastserve.plan.service import WorkspacePlan
from fastserve.serving.caching import CachingCoalescer
from fastserve.serving.coalescer import Coalescer
from fastserve.serving.row_cache import RowCache
from tests.server.application_world import V1, Answer, ApplicationWorld
from tests.serving.fake_store import number_of
from tests.support.plans import SHOP, USER, attribute_view, workspace_plan

DOWN = StoreError("nobody there", retryable=True)
STATUS = {"includeServingStatus": True}
KEYS: dict[str, Any] = {"user_id": "u1", "shop_id": 7}
USER_NUMBER = str(number_of("u1"))


def cached_plan() -> WorkspacePlan:
    kept = attribute_view(
        "kept", ["a_int"], cache_ttl=timedelta(seconds=10), stale_ttl=timedelta(seconds=100)
    )
    plain = attribute_view("plain", ["a_int"], entities=[SHOP])
    return workspace_plan({"kept": [kept], "both": [kept, plain], "plain": [plain]})


def pushed_plan(*, cached: bool) -> WorkspacePlan:
    source = PushSource("pushes", schema=[*USER.join_keys, Field("a_int", Int64)])
    pushed = FeatureView(
        "pushed",
        entities=[USER],
        source=source,
        features=[Attribute("a_int", Int64)],
        cache_ttl=timedelta(seconds=10) if cached else None,
        cache_streamed=cached,
    )
    # Beside a view that is kept in any case, so that there is a cache.
    kept = attribute_view("kept", ["a_int"], entities=[SHOP], cache_ttl=timedelta(seconds=10))
    return workspace_plan({"kept": [pushed], "shops": [kept]})


class CacheWorld(ApplicationWorld):
    """The application with a cache; `get` is one request from its start to its answer."""

    def __init__(self, plan: WorkspacePlan | None = None) -> None:
        self.cache = RowCache(1_000_000)
        super().__init__(plan=plan or cached_plan(), cache=self.cache)

    def get(self, service: str = "kept", **params: Any) -> tuple[list[Any], list[str]]:
        """Return features and statuses."""
        keys = KEYS if service == "both" else {"user_id": "u1"}
        answer = self.features(service, keys, metadataOptions=STATUS, **params)
        assert answer.status == 200, answer.json
        return told(answer)

    def begin(self, service: str = "kept", **params: Any) -> Callable[[], Answer | None]:
        keys = KEYS if service == "both" else {"user_id": "u1"}
        body = {"featureServiceName": service, "joinKeyMap": keys, "metadataOptions": STATUS, **params}
        connection = self.send("POST", V1 + "get-features", orjson.dumps({"params": body}))
        self.turn()
        return lambda: connection.answers[0] if connection.answers else None

    @property
    def asked(self) -> list[str]:
        """The keys that the store was asked for, since the last look."""
        keys = [read.key for batch in self.store.batches for read in batch]
        self.store.batches.clear()
        return keys


def told(answer: Answer) -> tuple[list[Any], list[str]]:
    statuses = [feature["status"] for feature in answer.json["metadata"]["features"]]
    return answer.json["result"]["features"], statuses


@pytest.fixture
def world() -> CacheWorld:
    return CacheWorld()


def test_a_row_is_served_from_memory_until_its_ttl_and_says_so(world: CacheWorld) -> None:
    assert world.get() == ([USER_NUMBER], ["PRESENT"])
    world.now_s += 9.9
    assert world.get() == ([USER_NUMBER], ["CACHED_PRESENT"])
    assert world.asked == ["u1"]
    world.now_s += 0.2
    assert world.get() == ([USER_NUMBER], ["PRESENT"])
    assert world.asked == ["u1"]


def test_an_absent_row_is_remembered_too(world: CacheWorld) -> None:
    world.store.rows["w.kept", "u1"] = None
    assert world.get() == ([None], ["MISSING_DATA"])
    assert world.get() == ([None], ["CACHED_MISSING_DATA"])
    assert world.asked == ["u1"]


def test_a_view_without_a_ttl_is_read_each_time(world: CacheWorld) -> None:
    assert world.get("both") == ([USER_NUMBER, str(number_of("7"))], ["PRESENT", "PRESENT"])
    world.asked.clear()
    assert world.get("both")[1] == ["CACHED_PRESENT", "PRESENT"]
    assert world.asked == ["7"]


def test_rows_are_shared_by_services_and_lines(world: CacheWorld) -> None:
    world.get("both")
    answer = world.batch(
        "kept", [{"user_id": "u1"}, {"user_id": "u2"}, {"user_id": "u1"}], metadataOptions=STATUS
    )
    assert answer.json["metadata"]["features"][0]["status"] == ["CACHED_PRESENT", "PRESENT", "CACHED_PRESENT"]
    values = [line["features"] for line in answer.json["result"]]
    assert values == [[USER_NUMBER], [str(number_of("u2"))], [USER_NUMBER]]


def test_a_request_may_refuse_rows_out_of_the_cache(world: CacheWorld) -> None:
    world.get()
    assert world.get(requestOptions={"readFromCache": False}) == ([USER_NUMBER], ["PRESENT"])
    assert world.asked == ["u1", "u1"]
    world.store.failing["u1"] = DOWN
    answer = world.features("kept", {"user_id": "u1"}, requestOptions={"read_from_cache": False})
    assert answer.status == 503


def test_a_request_may_leave_the_cache_as_it_is(world: CacheWorld) -> None:
    world.get(requestOptions={"writeToCache": False})
    assert len(world.cache) == 0
    world.get()
    assert len(world.cache) == 1


def test_while_the_store_is_down_the_last_known_row_is_served_until_its_stale_ttl(world: CacheWorld) -> None:
    world.get()
    world.store.failing["u1"] = DOWN
    world.now_s += 99
    assert world.get() == ([USER_NUMBER], ["CACHED_PRESENT"])
    world.now_s += 2
    assert world.features("kept", {"user_id": "u1"}).status == 503
    world.store.failing.clear()
    assert world.get() == ([USER_NUMBER], ["PRESENT"])


def test_a_row_that_no_outage_keeps_from_being_read_is_an_error(world: CacheWorld) -> None:
    world.get()
    world.now_s += 11
    world.store.failing["u1"] = StoreError("no such table")
    assert world.features("kept", {"user_id": "u1"}).status == 503


def test_a_row_that_was_never_read_cannot_be_served(world: CacheWorld) -> None:
    world.store.failing["7"] = DOWN
    world.get()
    world.now_s += 11
    assert world.features("both", KEYS).status == 503
    partial = world.features("both", KEYS, allowPartialResults=True, metadataOptions=STATUS)
    assert told(partial) == ([USER_NUMBER, None], ["CACHED_PRESENT", "UNKNOWN"])


def test_at_the_deadline_what_is_known_stands_for_what_has_not_come(world: CacheWorld) -> None:
    world.get()
    world.now_s += 11
    answer = world.begin()
    world.wait(2.0)
    got = answer()
    assert got is not None
    assert told(got) == ([USER_NUMBER], ["CACHED_PRESENT"])
    world.store.answer()  # too late, and dropped
    assert answer() is got


def test_at_the_deadline_a_request_that_lacks_a_row_is_refused_or_has_nulls(world: CacheWorld) -> None:
    world.get()
    world.now_s += 11
    refused = world.begin("both")
    partial = world.begin("both", requestOptions={"latencyBudgetMs": 50})
    world.wait(0.05)
    got = partial()
    assert got is not None
    assert told(got) == ([USER_NUMBER, None], ["CACHED_PRESENT", "TIME_OUT"])
    world.wait(2.0)
    late = refused()
    assert late is not None
    assert late.status == 504


def test_stale_rows_of_one_request_are_not_put_into_anothers(world: CacheWorld) -> None:
    world.get()
    world.now_s += 11
    hasty = world.begin(requestOptions={"latencyBudgetMs": 50})
    patient = world.begin()
    world.wait(0.05)
    world.store.answer()
    world.turn()
    first, second = hasty(), patient()
    assert first is not None
    assert second is not None
    assert (told(first)[1], told(second)[1]) == (["CACHED_PRESENT"], ["PRESENT"])


@pytest.mark.parametrize("cached", [True, False])
def test_a_view_that_is_pushed_to_is_kept_only_where_it_says_so(cached: bool) -> None:
    world = CacheWorld(pushed_plan(cached=cached))
    assert world.get() == ([USER_NUMBER], ["PRESENT"])
    assert world.get() == ([USER_NUMBER], ["CACHED_PRESENT" if cached else "PRESENT"])
    assert len(world.asked) == (1 if cached else 2)
    assert world.engine.coalescer.in_flight() == 0


def test_failed_reads_are_not_kept(world: CacheWorld) -> None:
    world.store.failing["u1"] = DOWN
    assert world.features("kept", {"user_id": "u1"}).status == 503
    assert len(world.cache) == 0


def test_where_no_view_has_a_ttl_the_cache_is_not_on_the_way() -> None:
    assert type(ApplicationWorld(cache=RowCache(1)).engine.coalescer) is Coalescer
    assert type(CacheWorld().engine.coalescer) is CachingCoalescer


def test_tables_that_are_cached_differently_are_read_apart() -> None:
    brief = attribute_view("brief", ["a_int"], cache_ttl=timedelta(seconds=1))
    long = attribute_view("long", ["a_int"], cache_ttl=timedelta(seconds=50))
    world = CacheWorld(workspace_plan({"kept": [brief, long, attribute_view("none", ["a_int"])]}))
    world.get()
    world.now_s += 2
    assert world.get()[1] == ["PRESENT", "CACHED_PRESENT", "PRESENT"]
