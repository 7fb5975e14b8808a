"""Names, join keys, paths and methods: what is refused before a store is asked, and with which words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.server.application_world import KEYS, V1, V2, VALUES, ApplicationWorld, is_refused

# --- join keys and names ---------------------------------------------------------------------------------

INT64 = "int64 (an integer or a decimal string, -2^63 to 2^63 - 1)"


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"shop_id": 7}, "Missing required join key: `user_id`"),
        ({}, "Missing required join key: `user_id`"),
        ({"user_id": "u1"}, "Missing required join key: `shop_id`"),
        ({"user_id": "u1", "shop": 7}, "Missing required join key: `shop_id`; got the unknown 'shop'"),
        (KEYS | {"x" * 99: 1}, f"Unknown join key: expected `user_id`, `shop_id`, got '{'x' * 62}…"),
        ({"user_id": 1, "shop_id": 7}, "Join key `user_id`: expected string, got integer 1"),
        (KEYS | {"shop_id": "12x"}, f"Join key `shop_id`: expected {INT64}, got string '12x'"),
        (KEYS | {"shop_id": 2**63}, f"Join key `shop_id`: expected {INT64}, got integer {2**63}"),
        (KEYS | {"shop_id": str(2**63)}, f"Join key `shop_id`: expected {INT64}, got string '{2**63}'"),
        (KEYS | {"shop_id": 7.0}, f"Join key `shop_id`: expected {INT64}, got number 7.0"),
        (KEYS | {"shop_id": True}, f"Join key `shop_id`: expected {INT64}, got boolean True"),
    ],
    ids=range(11),
)
def test_a_wrong_join_key_is_refused_by_name(world: ApplicationWorld, keys: Any, message: str) -> None:
    is_refused(world.features("fraud:v2", keys), 400, 3, message)
    assert world.engine.in_flight == 0


def test_an_integer_beyond_64_bits_is_refused_and_not_rounded(world: ApplicationWorld) -> None:
    body = (
        b'{"params":{"featureServiceName":"fraud:v2",'
        b'"joinKeyMap":{"user_id":"u","shop_id":18446744073709551616}}}'
    )
    answer = world.ask("POST", V1 + "get-features", body)
    message = f"Join key `shop_id`: expected {INT64}, got number 1.8446744073709552e+19"
    is_refused(answer, 400, 3, message)


def test_join_keys_may_be_null_and_int64_may_be_text(world: ApplicationWorld) -> None:
    answer = world.features("fraud:v2", {"user_id": None, "shop_id": "9007199254740993"})
    assert answer.status == 200
    assert {read.key for batch in world.store.batches for read in batch} == {"\\0", "9007199254740993"}


def test_request_context_that_nobody_takes_is_refused_unless_it_may_be_ignored(
    world: ApplicationWorld,
) -> None:
    context = {"amount": 1}
    answer = world.features("plain", {"user_id": "u"}, requestContextMap=context)
    is_refused(answer, 400, 3, "Unknown request context field: expected none, got 'amount'")
    options = {"ignoreExtraRequestContextFields": True}
    answer = world.features("plain", {"user_id": "u"}, requestContextMap=context, requestOptions=options)
    assert answer.status == 200


def test_unknown_and_missing_names(world: ApplicationWorld) -> None:
    is_refused(world.post("get-features"), 400, 3, "Missing required field: `featureServiceName`")
    is_refused(world.post("metadata"), 400, 3, "Missing required field: `featureServiceName`")
    answer = world.features("nobody", {}, workspaceName="w")
    is_refused(answer, 404, 5, "Unknown feature service 'nobody' in workspace 'w'")
    answer = world.features("", {})
    is_refused(answer, 404, 5, "Unknown feature service '' in workspace 'w'")
    answer = world.features("plain", {}, workspaceName="prod")
    is_refused(answer, 404, 5, "Unknown workspace 'prod': this server serves 'w'")
    answer = world.features("y" * 999, {})
    assert len(answer.json["message"]) < 150


# --- paths and methods -----------------------------------------------------------------------------------


def test_v2_paths_name_workspace_and_service(world: ApplicationWorld) -> None:
    body = orjson.dumps({"params": {"joinKeyMap": KEYS}})
    for service in ("fraud:v2", "fraud%3Av2", "fraud%3av2"):
        assert world.ask("POST", f"{V2}{service}/get-features", body).json == {"result": {"features": VALUES}}
    rows = orjson.dumps({"params": {"request_data": [{"join_key_map": KEYS}]}})
    answer = world.ask("POST", f"{V2}fraud:v2/get-features-batch", rows)
    assert answer.json == {"result": [{"features": VALUES}]}


def test_the_path_s_names_count_and_not_the_body_s(world: ApplicationWorld) -> None:
    params = {"joinKeyMap": {"user_id": "u1"}, "workspaceName": "prod", "featureServiceName": "fraud:v2"}
    answer = world.ask("POST", f"{V2}plain/get-features", orjson.dumps({"params": params}))
    assert answer.json == {"result": {"features": VALUES[:2]}}
    empty = world.ask("POST", f"{V2}/get-features", orjson.dumps({"params": params}))
    is_refused(empty, 404, 5, "Unknown feature service '' in workspace 'w'")
    other = "/api/v2/workspaces//feature-services/plain/get-features"
    answer = world.ask("POST", other, orjson.dumps({"params": params | {"workspaceName": "w"}}))
    is_refused(answer, 404, 5, "Unknown workspace '': this server serves 'w'")


def test_a_path_that_is_no_utf8_is_refused(world: ApplicationWorld) -> None:
    answer = world.ask("GET", f"{V2}%ff%fe/metadata")
    is_refused(answer, 400, 3, "Expected UTF-8 behind the percent signs of the path, got '%ff%fe'")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/feature-service/",
        "/api/v1/feature-service/get-features/",
        "/api/v2/workspaces/",
        "/api/v2/workspaces/w/feature-services/plain",
        "/api/v2/workspaces/w/feature-services/plain/",
        "/api/v2/workspaces/w/services/plain/metadata",
        "/api/v2/workspaces/w/feature-services/plain/metadata/more",
        "/api/v2/workspaces/w/feature-services/pl/ain/metadata",
        "/HEALTHZ",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_not_found(world: ApplicationWorld, method: str, path: str) -> None:
    is_refused(
        world.ask(method, path, b"{}"),
        404,
        5,
        f"Unknown path '{path}' for '{method}': /openapi.json lists them",
    )


@pytest.mark.parametrize(
    "path, method, allowed",
    [
        ("/healthz", "POST", "GET, HEAD"),
        ("/readyz", "DELETE", "GET, HEAD"),
        (V1 + "get-features", "GET", "POST"),
        (V1 + "get-features-batch", "PUT", "POST"),
        (V1 + "metadata", "HEAD", "POST"),
        (V2 + "plain/get-features", "GET", "POST"),
        (V2 + "plain/metadata", "POST", "GET, HEAD"),
    ],
)
def test_another_method_is_not_allowed(world: ApplicationWorld, path: str, method: str, allowed: str) -> None:
    answer = world.ask(method, path)
    message = f"Expected {allowed.replace(', ', ' or ')} for '{path}', got '{method}'"
    is_refused(answer, 405, 12, message)
    assert answer.headers == {b"Allow": allowed.encode()}


def test_alive_and_ready(world: ApplicationWorld) -> None:
    for method in ("GET", "HEAD"):
        assert world.ask(method, "/healthz").json == {"status": "alive"}
        assert world.ask(method, "/readyz").json == {"status": "ready"}
    world.readiness.is_ready = False
    assert world.ask("GET", "/healthz").status == 200
    is_refused(world.ask("GET", "/readyz"), 503, 14, "Not ready: starting or draining")
