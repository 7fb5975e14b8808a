"""The released `tecton-client` against a real server: what it sends we take, what we send it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from tecton_client import AsyncTectonClient, MetadataOptions, RequestOptions, TectonClient
from tecton_client.exceptions import (
    BadRequestError,
    GatewayTimeoutError,
    NotFoundError,
    ResourceExhaustedError,
    ServiceUnavailableError,
    TectonHttpException,
)

from fastserve.sdk.repo import load_repo
from perf.load import standin_client
from perf.load.standin_client import StandInAddress
from tests.integration.conftest import FLIGHTS_CLOCK, FlightsStore
from tests.support.bank_repo import ALL_JOIN_KEYS, JOIN_KEYS, ROWS, TIME_NS, VECTOR, write_bank_repo
from tests.support.feature_server import Row, apply_and_materialize, apply_and_put, serving_features
from tests.support.server_process import ROOT, Server
from tests.support.shop_repo import write_shop_repo

SHOP_CLOCK = "2026-01-02T12:00:00Z"
SHOP_CLOCK_NS = 1_767_355_200 * 10**9
FAR = 2**53 + 1  # the first integer that a float64 can't hold
EVERYTHING = MetadataOptions.all()  # type: ignore[no-untyped-call]
NAMES_AND_TYPES = MetadataOptions(include_names=True, include_data_types=True)
FRAUD_KEYS = {"user_id": "u1", "payee_id": "u2", "merchant_id": 7}


@pytest.fixture(scope="module")
def shop(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = write_shop_repo(tmp_path_factory.mktemp("shop"))
    apply_and_materialize(load_repo(folder), store_url, SHOP_CLOCK_NS)
    with serving_features(folder, store_url, "--workers", "1", "--clock", SHOP_CLOCK) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.said


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = write_bank_repo(tmp_path_factory.mktemp("bank"))
    far = [Row([key], {"amount": 0.1, "bookings": -key}, TIME_NS) for key in (FAR, 2**63 - 1)]
    nulls = [Row([None], {"amount": 1.0, "bookings": None}, TIME_NS)]
    rows = {**ROWS, "balance": [*ROWS["balance"], *far, *nulls]}
    store = f"local:{folder / 'store'}"
    apply_and_put(folder, store, rows)
    with serving_features(folder, store, "--workers", "2") as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.said


@pytest.fixture
def client(shop: Server) -> Iterator[TectonClient]:
    with httpx.Client() as http:
        yield TectonClient(shop.url, "a-key", default_workspace_name="shop", client=http)


@pytest.fixture
def bank_client(bank: Server) -> Iterator[TectonClient]:
    with httpx.Client() as http:
        yield TectonClient(bank.url, "a-key", default_workspace_name="bank", client=http)


def test_a_vector_with_all_metadata_is_read_whole(client: TectonClient) -> None:
    answer = client.get_features(
        feature_service_name="fraud:v2", join_key_map=FRAUD_KEYS, metadata_options=EVERYTHING
    )
    assert answer.get_features_dict() == {
        "pair.amount_max_7d_1h": 12.5,
        "payee_spending.amount_sum_1d_1h": 100.0,
        "profile.age": 30,
        "profile.city": "Oslo",
        "profile.vip": True,
        "shop.rating": 4.5,
        "spending.amount_count_1d_1h": 1,
        "spending.amount_count_28d_1h": 2,
        "spending.amount_mean_1d_1h": 2.5,
        "spending.amount_mean_28d_1h": 7.5,
        "spending.amount_sum_1d_1h": 2.5,
        "spending.amount_sum_28d_1h": 15.0,
    }
    assert answer.metadata is not None
    about = {feature["name"]: feature for feature in answer.metadata["features"]}
    assert about["profile.age"] == {
        "name": "profile.age",
        "dataType": {"type": "int64"},
        "description": "Years since birth",
        "tags": {"owner": "risk"},
        "effectiveTime": "2026-01-01T00:00:00Z",
        "status": "PRESENT",
    }
    assert about["spending.amount_sum_1d_1h"]["effectiveTime"] == SHOP_CLOCK
    assert {feature["status"] for feature in about.values()} == {"PRESENT"}
    slo = answer.slo_info
    assert slo is not None
    assert slo.slo_eligible is True
    assert slo.slo_ineligibility_reasons is None
    assert 0 < slo.slo_server_time_seconds <= slo.server_time_seconds < 5
    assert 0 <= slo.store_max_latency <= slo.server_time_seconds
    assert slo.store_response_size_bytes > 100


def test_without_metadata_options_there_is_no_metadata(client: TectonClient) -> None:
    answer = client.get_features(feature_service_name="users", join_key_map={"user_id": "u2"})
    assert answer.result.features == ["41"]
    assert answer.metadata is None
    assert answer.slo_info is None
    with pytest.raises(ValueError, match="Metadata is not included in response"):
        answer.get_features_dict()


@pytest.mark.parametrize(
    "option, members",
    [
        ("include_names", {"name"}),
        ("include_data_types", {"dataType"}),
        ("include_effective_times", {"effectiveTime"}),
        ("include_serving_status", {"status"}),
        ("include_feature_descriptions", {"description"}),
        ("include_feature_tags", {"tags"}),
    ],
)
def test_each_metadata_option_brings_its_own_part_alone(
    client: TectonClient, option: str, members: set[str]
) -> None:
    answer = client.get_features(
        feature_service_name="users",
        join_key_map={"user_id": "u1"},
        metadata_options=MetadataOptions(**{option: True}),
    )
    assert answer.metadata is not None
    assert [set(feature) for feature in answer.metadata["features"]] == [members]
    assert set(answer.metadata) == {"features"}


def test_slo_info_comes_alone_when_nothing_else_is_asked_for(client: TectonClient) -> None:
    answer = client.get_features(
        feature_service_name="users",
        join_key_map={"user_id": "u1"},
        metadata_options=MetadataOptions(include_slo_info=True, include_names=False),
    )
    assert answer.slo_info is not None
    assert answer.metadata is not None
    assert set(answer.metadata) == {"sloInfo"}


def test_an_unknown_entity_is_missing_data(client: TectonClient) -> None:
    for coerce, count in ((None, None), (False, None), (True, 0)):
        answer = client.get_features(
            feature_service_name="fraud:v2",
            join_key_map={"user_id": "nobody", "payee_id": "nobody", "merchant_id": -1},
            metadata_options=EVERYTHING,
            request_options=RequestOptions(coerce_null_counts_to_zero=coerce),
        )
        values = answer.get_features_dict()
        assert {name: value for name, value in values.items() if value is not None} == (
            {} if count is None else {"spending.amount_count_1d_1h": 0, "spending.amount_count_28d_1h": 0}
        )
        assert answer.metadata is not None
        assert {feature["status"] for feature in answer.metadata["features"]} == {"MISSING_DATA"}
        assert not any("effectiveTime" in feature for feature in answer.metadata["features"])


def test_all_request_options_are_taken(client: TectonClient) -> None:
    answer = client.get_features(
        feature_service_name="users",
        join_key_map={"user_id": "u1"},
        request_context_map={"amount": 12.5},
        request_options=RequestOptions(
            read_from_cache=False,
            write_to_cache=False,
            ignore_extra_request_context_fields=True,
            latency_budget_ms=1500,
            coerce_null_counts_to_zero=True,
        ),
        allow_partial_results=True,
    )
    assert answer.result.features == ["30"]


def test_the_metadata_of_a_service_tells_keys_and_values(client: TectonClient) -> None:
    answer = client.get_feature_service_metadata(feature_service_name="fraud:v2")
    assert answer.input_join_keys == [
        {"name": "user_id", "dataType": {"type": "string"}, "type": "string"},
        {"name": "payee_id", "dataType": {"type": "string"}, "type": "string"},
        {"name": "merchant_id", "dataType": {"type": "int64"}, "type": "int64"},
    ]
    assert answer.input_request_context_keys is None
    vector = client.get_features(
        feature_service_name="fraud:v2", join_key_map=FRAUD_KEYS, metadata_options=NAMES_AND_TYPES
    )
    assert vector.metadata is not None
    assert [(value["name"], value["dataType"]) for value in answer.feature_values] == [
        (feature["name"], feature["dataType"]) for feature in vector.metadata["features"]
    ]
    assert all(value["type"] == value["dataType"]["type"] for value in answer.feature_values)


@pytest.mark.parametrize("key", [FAR, 2**63 - 1, str(FAR), str(2**63 - 1)], ids=repr)
def test_int64_keys_and_values_above_2_to_the_53_stay_exact(
    bank_client: TectonClient, key: int | str
) -> None:
    answer = bank_client.get_features(
        feature_service_name="bank",
        join_key_map={"account_id": key, "user_id": "u1"},
        metadata_options=NAMES_AND_TYPES,
    )
    values = answer.get_features_dict()
    assert values["balance.amount"] == 0.1
    assert values["balance.bookings"] == -int(key)


def test_a_null_key_is_a_key_of_its_own(bank_client: TectonClient) -> None:
    answer = bank_client.get_features(
        feature_service_name="bank",
        join_key_map={"account_id": None, "user_id": None},
        metadata_options=EVERYTHING,
    )
    assert answer.result.features == [1.0, None, None, None, None]
    assert answer.metadata is not None
    statuses = [feature["status"] for feature in answer.metadata["features"]]
    assert statuses == ["PRESENT"] * 2 + ["MISSING_DATA"] * 3


def test_keys_of_every_type_find_their_rows(bank_client: TectonClient) -> None:
    answer = bank_client.get_features(
        feature_service_name="bank:all", join_key_map={**ALL_JOIN_KEYS, "since": "2026-01-01T01:00:00+01:00"}
    )
    assert answer.result.features == [*VECTOR, "3"]


def test_a_bad_request_is_its_error_with_our_text(client: TectonClient) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.get_features(feature_service_name="users", join_key_map={})
    assert caught.value.message == "400 Bad Request: Missing required join key: `user_id`"
    with pytest.raises(BadRequestError) as caught:
        client.get_features(feature_service_name="users", join_key_map={"user_id": 1})
    assert caught.value.message == "400 Bad Request: Join key `user_id`: expected string, got integer 1"


def test_an_unknown_service_or_workspace_is_its_error_with_our_text(client: TectonClient) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.get_features(feature_service_name="users:v3", join_key_map={"user_id": "u1"})
    assert caught.value.message == "404 Not Found: Unknown feature service 'users:v3' in workspace 'shop'"
    with pytest.raises(NotFoundError) as caught:
        client.get_feature_service_metadata(feature_service_name="users", workspace_name="prod")
    assert caught.value.message == "404 Not Found: Unknown workspace 'prod': this server serves 'shop'"


def test_a_body_over_the_limit_is_an_error_though_not_one_with_text(bank: Server) -> None:
    """The client knows no 413 and drops its text; what matters is that it raises."""
    with httpx.Client() as http:
        client = TectonClient(bank.url, "a-key", default_workspace_name="bank", client=http)
        with pytest.raises(TectonHttpException, match=r"413 .*: $"):
            client.get_features(feature_service_name="bank", join_key_map={"user_id": "u" * 6_000_000})


class Slow(NamedTuple):
    """A client of a server with a short timeout, and its store."""

    client: TectonClient
    stand_in: StandInAddress


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    repo = write_bank_repo(tmp_path_factory.mktemp("slow"))
    with standin_client.running() as stand_in, httpx.Client() as http:
        apply_and_put(repo, stand_in.store_url(), ROWS)
        flags = ["--workers", "1", "--server-timeout-ms", "250"]
        with serving_features(repo, stand_in.store_url(), *flags) as server:
            yield Slow(
                TectonClient(server.url, "a-key", default_workspace_name="bank", client=http), stand_in
            )
            assert server.stop() == 0
            assert "Traceback" not in server.said


def recover(slow: Slow) -> None:
    """Let the store be well, and wait until the server has noticed: then it bears some failures again."""
    slow.stand_in.control(faults={})
    for _ in range(500):
        try:
            slow.client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS)
        except (ServiceUnavailableError, GatewayTimeoutError):
            continue
        return
    raise AssertionError("the server didn't recover")


def test_a_store_that_is_late_is_a_timeout_with_our_text(slow: Slow) -> None:
    """Whether the store's client or the request is the first to notice, the caller is told the same."""
    recover(slow)
    slow.stand_in.control(faults={"stall_share": 1.0, "stall_ms": 500})
    for allow_partial_results in [False, True] * 3:
        with pytest.raises(GatewayTimeoutError) as caught:
            slow.client.get_features(
                feature_service_name="bank",
                join_key_map=JOIN_KEYS,
                allow_partial_results=allow_partial_results,
            )
        assert caught.value.message == ("504 Gateway Timeout: No answer within the server timeout of 0.25 s")


@pytest.mark.parametrize("budget_ms", [100, 120, "110"])
def test_what_has_not_come_by_the_latency_budget_is_null_and_timed_out(
    slow: Slow, budget_ms: int | str
) -> None:
    recover(slow)
    slow.stand_in.control(faults={"stall_share": 1.0, "stall_ms": 400})
    options = RequestOptions()
    options.latency_budget_ms = budget_ms  # type: ignore[assignment]  # text is allowed on the wire
    for _ in range(4):
        answer = slow.client.get_features(
            feature_service_name="bank",
            join_key_map=JOIN_KEYS,
            request_options=options,
            metadata_options=EVERYTHING,
        )
        assert answer.result.features == [None] * 5
        assert answer.metadata is not None
        assert {feature["status"] for feature in answer.metadata["features"]} == {"TIME_OUT"}


def test_a_store_that_fails_is_its_error_with_our_text(slow: Slow) -> None:
    recover(slow)  # no read is under way now
    slow.stand_in.control(faults={"server_error_share": 1.0})
    with pytest.raises(ServiceUnavailableError) as failed:
        slow.client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS)
    assert failed.value.message == (
        "503 Service Unavailable: The online store failed: DynamoDB: reading bank.balance: "
        "InternalServerError: The request processing has failed."
    )
    slow.stand_in.control(faults={"throttle_share": 1.0})
    with pytest.raises(ResourceExhaustedError) as throttled:
        slow.client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS)
    assert throttled.value.message == (
        "429 Too Many Requests: The online store failed: DynamoDB: reading bank.balance: "
        "ProvisionedThroughputExceededException: "
        "The level of configured provisioned throughput for the table was exceeded."
    )
    slow.stand_in.control(faults={})
    answer = slow.client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS)
    assert answer.result.features == VECTOR


def test_the_asynchronous_client_reads_the_same(bank: Server) -> None:
    async def ask() -> list[object]:
        async with httpx.AsyncClient() as http:
            client = AsyncTectonClient(bank.url, "a-key", default_workspace_name="bank", client=http)
            answers = await asyncio.gather(
                *[client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS) for _ in range(20)]
            )
            return [answer.result.features for answer in answers]

    assert asyncio.run(ask()) == [VECTOR] * 20


def test_the_client_drops_a_path_of_its_url_and_finds_us_at_the_root(bank: Server) -> None:
    with httpx.Client() as http:
        client = TectonClient(f"{bank.url}/tecton/", "a-key", default_workspace_name="bank", client=http)
        answer = client.get_features(feature_service_name="bank", join_key_map=JOIN_KEYS)
    assert answer.result.features == VECTOR


def test_the_flights_demo_gives_its_vector_to_the_client(flights_store: FlightsStore) -> None:
    repo = ROOT / "examples" / "flights"
    flags = ["--workers", "1", "--clock", FLIGHTS_CLOCK]
    with serving_features(repo, flights_store.url, *flags) as server, httpx.Client() as http:
        client = TectonClient(server.url, "a-key", default_workspace_name="flights", client=http)
        answer = client.get_features(
            feature_service_name="flight_delay",
            join_key_map={"carrier": "UA", "origin": "EWR", "dest": "IAH", "tailnum": "N14228"},
            metadata_options=EVERYTHING,
        )
        assert server.stop() == 0
    vector = answer.get_features_dict()
    assert len(vector) >= 100
    assert vector["airline.name"] == "United Air Lines Inc."
    assert vector["origin_airport.name"] == "Newark Liberty Intl"
    assert vector["dest_airport.name"] == "George Bush Intercontinental"
    assert vector["plane.year"] == 1999
    # From the raw file, by a query of its own:
    assert vector["carrier_delays.flight_count_356d_1h"] == 57310
    assert vector["route_delays.flight_count_7d_1h"] == 74
    assert vector["route_delays.dep_delay_max_7d_1h"] == 109.0
    assert vector["route_delays.dep_delay_mean_7d_1h"] == pytest.approx(19.7972972972973, rel=1e-12)
    assert answer.metadata is not None
    assert {feature["status"] for feature in answer.metadata["features"]} == {"PRESENT"}
