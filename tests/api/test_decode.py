from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fastserve.api.decode import (
    INCLUDE_DATA_TYPES,
    INCLUDE_DESCRIPTIONS,
    INCLUDE_EFFECTIVE_TIMES,
    INCLUDE_NAMES,
    INCLUDE_SLO_INFO,
    INCLUDE_STATUS,
    INCLUDE_TAGS,
    FeaturesRequest,
    decode_get_features,
    decode_get_features_batch,
    decode_metadata,
)
from fastserve.errors import RequestError

OPTIONS = {
    "Names": INCLUDE_NAMES,
    "DataTypes": INCLUDE_DATA_TYPES,
    "EffectiveTimes": INCLUDE_EFFECTIVE_TIMES,
    "SloInfo": INCLUDE_SLO_INFO,
    "ServingStatus": INCLUDE_STATUS,
    "FeatureDescriptions": INCLUDE_DESCRIPTIONS,
    "FeatureTags": INCLUDE_TAGS,
}


def snake(name: str) -> str:
    return "".join([f"_{char.lower()}" if char.isupper() else char for char in name])


def snaked(value: Any) -> Any:
    """Return a camelCase document in snake_case, keys of the maps left alone."""
    if not isinstance(value, dict):
        return value
    return {
        snake(key): inner if key in {"joinKeyMap", "requestContextMap"} else snaked(inner)
        for key, inner in value.items()
    }


def body(params: Any) -> bytes:
    return orjson.dumps({"params": params})


ASKED = (
    "allow_partial",
    "ignore_extra_context",
    "latency_budget_ms",
    "metadata",
    "reads_cache",
    "writes_cache",
    "zero_counts",
)


def facts(request: FeaturesRequest) -> dict[str, Any]:
    own = {name: getattr(request, name) for name in ("workspace", "service", "rows")}
    return own | {name: getattr(request.options, name) for name in ASKED}


# The document of API.md, whole.
FULL = {
    "workspaceName": "prod",
    "featureServiceName": "fraud:v2",
    "joinKeyMap": {"user_id": "u1", "merchant_id": 9007199254740993, "opt": None},
    "requestContextMap": {"amount": 12.5, "cards": ["a", "b"], "n": "42"},
    "allowPartialResults": True,
    "metadataOptions": {f"include{name}": True for name in OPTIONS},
    "requestOptions": {
        "latencyBudgetMs": 200,
        "coerceNullCountsToZero": True,
        "ignoreExtraRequestContextFields": True,
        "readFromCache": True,
        "writeToCache": True,
        "aggregationLeadingEdge": "AGGREGATION_MODE_WALL_CLOCK_TIME",
    },
}
DECODED = {
    "workspace": "prod",
    "service": "fraud:v2",
    "rows": [(FULL["joinKeyMap"], FULL["requestContextMap"])],
    "metadata": 127,
    "allow_partial": True,
    "zero_counts": True,
    "ignore_extra_context": True,
    "latency_budget_ms": 200.0,
    "reads_cache": True,
    "writes_cache": True,
}
DEFAULTS: dict[str, Any] = {
    "workspace": None,
    "service": None,
    "rows": [({}, {})],
    "metadata": 0,
    "allow_partial": False,
    "zero_counts": False,
    "ignore_extra_context": False,
    "latency_budget_ms": None,
    "reads_cache": True,
    "writes_cache": True,
}


def refusal(text: bytes, decode: Callable[[bytes], FeaturesRequest] = decode_get_features) -> str:
    with pytest.raises(RequestError) as caught:
        decode(text)
    assert (caught.value.status, caught.value.code) == (400, 3)
    return caught.value.message


def test_the_whole_document_in_camel_case() -> None:
    assert facts(decode_get_features(body(FULL))) == DECODED


def test_the_whole_document_in_snake_case() -> None:
    assert facts(decode_get_features(body(snaked(FULL)))) == DECODED


def test_camel_case_wins_where_both_are_there() -> None:
    other = {
        "workspace_name": "x",
        "feature_service_name": "x",
        "join_key_map": {"x": 1},
        "request_context_map": {"x": 1},
        "allow_partial_results": False,
        "metadata_options": {"include_names": False},
        "request_options": {"latency_budget_ms": 1},
    }
    assert facts(decode_get_features(body(other | FULL))) == DECODED
    both = {"metadataOptions": {"includeNames": False, "include_names": True, "include_slo_info": True}}
    assert decode_get_features(body(both)).options.metadata == INCLUDE_SLO_INFO
    options = {"requestOptions": {"latencyBudgetMs": 5, "latency_budget_ms": 9}}
    assert decode_get_features(body(options)).options.latency_budget_ms == 5.0


def test_nothing_is_required_here_and_null_is_as_good_as_nothing() -> None:
    assert facts(decode_get_features(body({}))) == DEFAULTS
    nothing = dict.fromkeys(FULL)
    assert facts(decode_get_features(body(nothing))) == DEFAULTS
    assert facts(decode_get_features(body(snaked(nothing)))) == DEFAULTS
    inner = {key: dict.fromkeys(FULL[key]) for key in ("metadataOptions", "requestOptions")}  # type: ignore[call-overload]
    assert facts(decode_get_features(body(inner))) == DEFAULTS


def test_a_null_in_camel_case_gives_way_to_snake_case() -> None:
    params = {"joinKeyMap": None, "join_key_map": {"k": 1}, "workspaceName": None, "workspace_name": "w"}
    request = decode_get_features(body(params))
    assert (request.rows, request.workspace) == ([({"k": 1}, {})], "w")


@pytest.mark.parametrize("name, flag", OPTIONS.items())
def test_each_metadata_option_is_its_own(name: str, flag: int) -> None:
    for spelling in (f"include{name}", snake(f"include{name}")):
        assert decode_get_features(body({"metadataOptions": {spelling: True}})).options.metadata == flag
        assert decode_get_features(body({"metadata_options": {spelling: False}})).options.metadata == 0


def test_options_that_nobody_here_knows_are_passed_over() -> None:
    params = {
        "unknown": 1,
        "metadataOptions": {"includeMoonPhase": "full"},
        "requestOptions": {"aggregationLeadingEdge": "maybe", "unknown": []},
    }
    assert facts(decode_get_features(orjson.dumps({"params": params, "other": 1}))) == DEFAULTS


@pytest.mark.parametrize(
    "value, expected", [(200, 200.0), ("200", 200.0), (0.5, 0.5), ("0.5", 0.5), (10**15, 1e15)], ids=repr
)
def test_a_budget_is_a_number_or_a_number_as_text(value: Any, expected: float) -> None:
    assert (
        decode_get_features(body({"requestOptions": {"latencyBudgetMs": value}})).options.latency_budget_ms
        == expected
    )


@pytest.mark.parametrize(
    "value, came",
    [
        (0, "integer 0"),
        (-1, "integer -1"),
        ("0", "string '0'"),
        ("", "string ''"),
        ("abc", "string 'abc'"),
        ("nan", "string 'nan'"),
        ("inf", "string 'inf'"),
        ("1_000", "string '1_000'"),
        (" 5", "string ' 5'"),
        (True, "boolean True"),
        ([5], "array [5]"),
    ],
    ids=repr,
)
def test_a_budget_of_another_kind_is_refused(value: Any, came: str) -> None:
    assert refusal(body({"requestOptions": {"latencyBudgetMs": value}})) == (
        f"Field `requestOptions.latencyBudgetMs`: expected a number of milliseconds above 0, got {came}"
    )


def nested(*path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


WRONG = [
    (("workspaceName",), 7, "string", "integer 7"),
    (("featureServiceName",), ["s"], "string", "array ['s']"),
    (("joinKeyMap",), [], "object", "array []"),
    (("joinKeyMap",), "u1", "object", "string 'u1'"),
    (("requestContextMap",), 1.5, "object", "number 1.5"),
    (("allowPartialResults",), "true", "true or false", "string 'true'"),
    (("metadataOptions",), True, "object", "boolean True"),
    *[(("metadataOptions", f"include{name}"), 1, "true or false", "integer 1") for name in OPTIONS],
    (("requestOptions",), "x", "object", "string 'x'"),
    (("requestOptions", "coerceNullCountsToZero"), 0, "true or false", "integer 0"),
    (("requestOptions", "ignoreExtraRequestContextFields"), "", "true or false", "string ''"),
]


@pytest.mark.parametrize(
    "path, value, expected, came", WRONG, ids=[f"{'.'.join(w[0])}={w[1]!r}" for w in WRONG]
)
def test_a_field_of_the_wrong_type_is_named(
    path: tuple[str, ...], value: Any, expected: str, came: str
) -> None:
    message = f"Field `{'.'.join(path)}`: expected {expected}, got {came}"
    assert refusal(body(nested(*path, value=value))) == message
    assert refusal(body(nested(*map(snake, path), value=value))) == message


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "Expected a JSON body with `params`, got an empty body"),
        (b" \n", "Expected a JSON body with `params`, got an empty body"),
        (b"[]", "Expected a JSON object with the field `params`, got []"),
        (b"null", "Expected a JSON object with the field `params`, got None"),
        (b"1", "Expected a JSON object with the field `params`, got 1"),
        (b'"params"', "Expected a JSON object with the field `params`, got 'params'"),
        (b"{}", "Expected a JSON object with the field `params`, got {}"),
        (b'{"params":null}', "Field `params`: expected object, got null"),
        (b'{"params":[]}', "Field `params`: expected object, got array []"),
        (b'{"Params":{}}', "Expected a JSON object with the field `params`, got {'Params': {}}"),
    ],
)
def test_a_body_that_is_no_request_is_refused(text: bytes, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b'{"params":{}',
        b'{"params":{}} x',
        b"{'params':{}}",
        b'{"params":{"joinKeyMap":{"a":NaN}}}',
        b'{"params":{"joinKeyMap":{"a":1e400}}}',
        b'{"params":{"joinKeyMap":{"a":"\xff"}}}',
        b'{"params":{"joinKeyMap":{"a":"\\ud800"}}}',
        b"\xff\xfe{\x00}\x00",
        b'{"params":{"joinKeyMap":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
    ],
    ids=range(12),
)
def test_a_body_that_is_no_json_is_refused_with_the_place(text: bytes) -> None:
    message = refusal(text)
    assert message.startswith("Expected a JSON body in UTF-8, got malformed JSON: ")
    assert " at line " in message
    assert len(message) < 200


def test_bytes_that_are_no_utf_8_are_refused_with_their_place() -> None:
    message = refusal('{"params":\n {"ä":'.encode() + b'"\xff"}}')
    assert message.endswith("malformed JSON: bytes that are no UTF-8 at line 2, column 8")


def test_no_message_echoes_more_than_64_characters() -> None:
    for text in (body({"workspaceName": ["x" * 5000]}), orjson.dumps("y" * 5000), orjson.dumps(["z" * 5000])):
        assert len(refusal(text)) < 200


# --- batches ---------------------------------------------------------------------------------------------


def batch(text: bytes, max_rows: int = 3) -> FeaturesRequest:
    return decode_get_features_batch(text, max_rows)


def test_a_batch_has_a_row_for_each_entry_in_either_spelling() -> None:
    rows = [{"join_key_map": {"a": 1}, "request_context_map": {"b": 2}}, {"joinKeyMap": {"a": 3}}, {}]
    expected = [({"a": 1}, {"b": 2}), ({"a": 3}, {}), ({}, {})]
    for name in ("requestData", "request_data"):
        params = {key: value for key, value in FULL.items() if not key.endswith("Map")} | {name: rows}
        assert facts(batch(body(params))) == DECODED | {"rows": expected}


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "Field `request_data`: expected array of 1 to 3 objects, got null"),
        ([], "Field `request_data`: expected array of 1 to 3 objects, got array []"),
        ({}, "Field `request_data`: expected array of 1 to 3 objects, got object {}"),
        ([{}] * 4, "Field `request_data`: expected at most 3 rows, got 4"),
        ([{}, 7], "Field `request_data[1]`: expected object, got integer 7"),
        ([{"joinKeyMap": 7}], "Field `request_data[0].join_key_map`: expected object, got integer 7"),
        (
            [{}, {"request_context_map": []}],
            "Field `request_data[1].request_context_map`: expected object, got array []",
        ),
    ],
)
def test_a_batch_of_another_shape_is_refused(data: Any, message: str) -> None:
    assert refusal(body({"request_data": data}), batch) == message


def test_metadata_takes_the_names_alone() -> None:
    request = decode_metadata(body({"workspaceName": "w", "feature_service_name": "s"}))
    assert (request.workspace, request.service, request.rows) == ("w", "s", ())
    assert refusal(body({"workspaceName": 1}), decode_metadata).startswith("Field `workspaceName`")
    assert refusal(b"x", decode_metadata).startswith("Expected a JSON body")
