"""The OpenAPI document is valid, says what is defined, and its schemas judge values as the server does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from fastserve.api.context import value_reader
from fastserve.api.openapi import About, openapi_at, openapi_document, openapi_json
from fastserve.api.openapi_schemas import SCHEMAS, snake
from fastserve.api.openapi_types import COMMON, Document, example, key_schema, taken_schema, written_schema
from fastserve.api.values import key_text
from fastserve.errors import RequestError
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from tests.support.api_plan import TIME, api_plan, faults
from tests.support.feast_golden import feast_plan, golden
from tests.support.plans import attribute_view, workspace_plan

ABOUT = About(version="1.2.3", needs_key=False, max_batch_rows=1000, example_time=TIME)
V1 = "/api/v1/feature-service/"
V2 = "/api/v2/workspaces/w/feature-services/"
TYPES: list[DataType] = [
    Int64,
    Float64,
    Float32,
    String,
    Bool,
    Timestamp,
    Array(Int64),
    Struct([Field("x", Float64), Field("y", Array(String))]),
    Map(String, Float32),
]
NESTED = {"components": {"schemas": dict(COMMON)}}


@pytest.fixture(scope="module")
def document() -> Document:
    return openapi_document(api_plan(), ABOUT)


@pytest.mark.parametrize("needs_key", [False, True])
def test_it_is_valid_openapi_3_1(needs_key: bool) -> None:
    about = About("1", needs_key, 10, TIME)
    made = openapi_document(api_plan(), about, "https://features.example.org/")
    validate(made)
    assert made["openapi"] == "3.1.0"
    assert made["servers"] == [{"url": "https://features.example.org/"}]
    assert ("security" in made) is needs_key


def test_it_is_the_same_for_the_same_arguments(document: Document) -> None:
    assert orjson.loads(openapi_json(api_plan(), ABOUT)) == document
    assert openapi_json(api_plan(), ABOUT) == openapi_json(api_plan(), ABOUT)


def test_another_address_is_put_in_without_making_it_anew() -> None:
    url = "https://features.example.org:8443"
    assert openapi_at(openapi_json(api_plan(), ABOUT), url) == openapi_json(api_plan(), ABOUT, url)


def test_every_reference_leads_somewhere(document: Document) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, list):
            return {found for each in part for found in references(each)}
        if not isinstance(part, dict):
            return set()
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own | {found for each in part.values() for found in references(each)}

    for reference in references(document):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][kind], reference


def test_each_service_has_paths_of_its_own_under_a_name_of_its_own(document: Document) -> None:
    own = [path for path in document["paths"] if path.startswith(V2)]
    services = ["everything:v2", "a.b-c", "a.b:c", "a.b_c"]
    actions = ["get-features", "get-features-batch", "metadata"]
    assert own == [f"{V2}{service}/{action}" for service in services for action in actions]
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"JoinKeys.a.b_c", "JoinKeys.a.b_c_2"} <= set(document["components"]["schemas"])


def test_a_service_s_schemas_have_its_keys_its_context_and_its_features(document: Document) -> None:
    schemas = document["components"]["schemas"]
    keys = schemas["JoinKeys.everything_v2"]
    assert keys["required"] == list(keys["properties"]) == ["user_id", "shop_id", "active", "since"]
    assert keys["additionalProperties"] is False
    context = schemas["RequestContext.everything_v2"]
    assert context["properties"]["cards"] == taken_schema(Array(Int64))
    vector = schemas["Vector.everything_v2"]["properties"]["features"]["prefixItems"]
    plan = api_plan().services["everything:v2"]
    assert [each["title"] for each in vector] == [output.name for output in plan.outputs]


def test_both_spellings_of_every_field_are_there(document: Document) -> None:
    for name, schema in document["components"]["schemas"].items():
        if "Request" not in name or name.startswith("RequestContext"):
            continue
        params = schema["properties"].get("params", schema)
        rows = params["properties"].get("requestData", {}).get("items", {})
        for properties in (params["properties"], rows.get("properties", {})):
            missing = [field for field in properties if snake(field) not in properties]
            assert missing == [], name
            assert {"joinKeyMap", "join_key_map"} <= set(properties) or "joinKeyMap" not in properties


def test_what_is_passed_over_and_what_is_refused_is_told_apart(document: Document) -> None:
    schemas = document["components"]["schemas"]
    tolerant = [name for name, schema in schemas.items() if schema.get("additionalProperties") is True]
    assert {"MetadataOptions", "RequestOptions", "VectorRequest", "IngestRequest"} <= set(tolerant)
    assert all("Request" in name or name.endswith("Options") for name in tolerant)
    for name in SCHEMAS:
        if not name.endswith("Options") and "properties" in SCHEMAS[name]:
            assert SCHEMAS[name]["additionalProperties"] is False, name


def test_every_operation_says_how_it_refuses(document: Document) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            statuses = set(operation["responses"])
            assert "default" in statuses, path
            if "requestBody" in operation:
                assert {"400", "401", "403", "404", "413", "429", "500", "503", "504"} <= statuses, path
    error = document["components"]["schemas"]["Error"]
    assert error["required"] == ["error", "message", "code"]


def test_a_key_is_asked_for_by_all_but_health(document: Document) -> None:
    with_keys = openapi_document(api_plan(), About("1", True, 10, TIME))
    open_to_all = {
        path
        for path, operations in with_keys["paths"].items()
        if any(operation.get("security") == [] for operation in operations.values())
    }
    assert open_to_all == {"/healthz", "/readyz"}
    assert set(with_keys["components"]["securitySchemes"]) == {"tectonKey", "bearer"}
    assert "securitySchemes" not in document["components"]


# --- values ---------------------------------------------------------------------------------------------


def is_taken(dtype: DataType, value: Any) -> bool:
    try:
        value_reader(dtype, "x")(value)
    except RequestError:
        return False
    return True


def is_key(dtype: DataType, value: Any) -> bool:
    try:
        key_text(Field("x", dtype))(value)
    except RequestError:
        return False
    return True


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) - 2, 2**63 + 2),
    st.integers(-(2**63) - 2, 2**63 + 2).map(str),
    st.from_regex(r"-?[0-9]{17,20}", fullmatch=True),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer()),
    st.sampled_from([3.5e38, -3.5e38, "NaN", "Infinity", "-Infinity", "nan", "", "1.5", "1 ", "१"]),
    st.sampled_from([TIME, "2026-02-03", "2026-02-03 04:05", "1677-01-01", "2263-01-01", "03.02.2026"]),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-2][1-8]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9])?(Z|\+1[0-9]:?[0-6]0)?)?",
        fullmatch=True,
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@settings(max_examples=40)
@given(value=VALUES)
def test_a_schema_takes_exactly_the_values_that_the_server_takes(dtype: DataType, value: Any) -> None:
    found = faults(NESTED, taken_schema(dtype), value)
    assert (found == []) is is_taken(dtype, value), found


@pytest.mark.parametrize("dtype", [String, Int64, Bool, Timestamp], ids=str)
@settings(max_examples=40)
@given(value=SCALARS)
def test_a_key_s_schema_takes_exactly_the_keys_that_the_server_takes(dtype: DataType, value: Any) -> None:
    assert (faults(NESTED, key_schema(dtype), value) == []) is is_key(dtype, value)


@pytest.mark.parametrize(
    "text", ["9223372036854775807", "-9223372036854775808", "0000000000000000001", "-0", "922337203685477580"]
)
def test_int64_is_taken_to_its_ends(text: str) -> None:
    assert faults(NESTED, taken_schema(Int64), text) == []
    assert is_taken(Int64, text)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "-9223372036854775809", "9999999999999999999", "", "-"]
)
def test_what_is_beyond_int64_isn_t(text: str) -> None:
    assert faults(NESTED, taken_schema(Int64), text)
    assert not is_taken(Int64, text)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_an_example_is_a_value_that_is_taken(dtype: DataType) -> None:
    value = example(dtype, "x", TIME)
    assert is_taken(dtype, value)
    assert faults(NESTED, taken_schema(dtype), value) == []


def test_a_written_struct_is_a_list_of_its_fields() -> None:
    schema = written_schema(Struct([Field("x", Float64), Field("n", Int64)]))
    assert faults(NESTED, schema, [0.5, "1"]) == []
    assert faults(NESTED, schema, ["NaN", None]) == []
    assert faults(NESTED, schema, [0.5, 1])
    assert faults(NESTED, schema, [0.5])
    assert faults(NESTED, schema, {"x": 0.5, "n": "1"})


def test_feast_s_paths_are_there_where_feast_s_tables_are() -> None:
    made = openapi_document(feast_plan(), ABOUT)
    validate(made)
    assert {"/get-online-features", "/health"} <= set(made["paths"])
    schema = made["components"]["schemas"]["FeastRequest"]
    examples = made["paths"]["/get-online-features"]["post"]["requestBody"]["content"]["application/json"]
    for each in examples["examples"].values():
        assert faults(made, schema, each["value"]) == []
    answer = made["components"]["schemas"]["FeastAnswer"]
    recorded = [each for each in golden("exchanges.json") if each["status"] == 200]
    assert recorded
    for each in recorded:
        assert faults(made, answer, each["answer"]) == [], each["name"]


def test_a_workspace_without_services_is_described_too() -> None:
    validate(openapi_document(workspace_plan({}), ABOUT))


def test_there_is_no_word_of_feast_elsewhere(document: Document) -> None:
    assert "Feast" not in orjson.dumps(document).decode()


def test_a_service_named_like_a_part_of_the_api_has_a_tag_of_its_own() -> None:
    names = ["vectors", "ingest", "server", "metadata"]
    made = openapi_document(workspace_plan({name: [attribute_view(name)] for name in names}), ABOUT)
    validate(made)
    tags = [tag["name"] for tag in made["tags"]]
    assert len(set(tags)) == len(tags)
    used = {tag for path in made["paths"].values() for each in path.values() for tag in each["tags"]}
    assert used == set(tags)


def test_whoever_is_to_come_back_is_told_when(document: Document) -> None:
    responses = document["components"]["responses"]
    assert {name for name, each in responses.items() if "headers" in each} == {"Refused429", "Refused503"}
    feast = openapi_document(feast_plan(), ABOUT)["paths"]["/get-online-features"]["post"]["responses"]
    assert {status for status, each in feast.items() if "headers" in each} == {"429", "503"}
