"""Request bodies of get-features, get-features-batch and metadata.

Field names come in camelCase (Tecton's Python client), in snake_case (its Java client), or both; camelCase
wins. Options that nobody here knows are passed over, so that newer clients work. What is known is checked.

Invariants
1. A decoded request has the declared types; nothing above asks again.
2. Every refusal is a `RequestError` with status 400 that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from fastserve.api.values import bad_value, json_fault
from fastserve.errors import RequestError, shown

INCLUDE_NAMES = 1
INCLUDE_DATA_TYPES = 2
INCLUDE_EFFECTIVE_TIMES = 4
INCLUDE_SLO_INFO = 8
INCLUDE_STATUS = 16
INCLUDE_DESCRIPTIONS = 32
INCLUDE_TAGS = 64

PER_FEATURE = (
    INCLUDE_NAMES
    | INCLUDE_DATA_TYPES
    | INCLUDE_EFFECTIVE_TIMES
    | INCLUDE_STATUS
    | INCLUDE_DESCRIPTIONS
    | INCLUDE_TAGS
)

_METADATA_OPTIONS = (
    ("includeNames", "include_names", INCLUDE_NAMES),
    ("includeDataTypes", "include_data_types", INCLUDE_DATA_TYPES),
    ("includeEffectiveTimes", "include_effective_times", INCLUDE_EFFECTIVE_TIMES),
    ("includeSloInfo", "include_slo_info", INCLUDE_SLO_INFO),
    ("includeServingStatus", "include_serving_status", INCLUDE_STATUS),
    ("includeFeatureDescriptions", "include_feature_descriptions", INCLUDE_DESCRIPTIONS),
    ("includeFeatureTags", "include_feature_tags", INCLUDE_TAGS),
)

_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)

PLAIN_FIELDS: Final = frozenset({"workspaceName", "featureServiceName", "joinKeyMap", "requestContextMap"})
"""A request with these alone has no options to look for, which takes as long as all else here."""

Row = tuple[dict[str, Any], dict[str, Any]]
"""Join keys and request context of one vector."""

_NOTHING: Final[dict[str, Any]] = {}


class RequestOptions:
    """What a request asks for beside its values.

    ``metadata`` is a sum of INCLUDE_… flags, ``latency_budget_ms`` is None without one.
    """

    __slots__ = (
        "allow_partial",
        "ignore_extra_context",
        "latency_budget_ms",
        "metadata",
        "reads_cache",
        "writes_cache",
        "zero_counts",
    )

    def __init__(self) -> None:
        self.reads_cache = True
        self.writes_cache = True
        self.metadata = 0
        self.allow_partial = False
        self.zero_counts = False
        self.ignore_extra_context = False
        self.latency_budget_ms: float | None = None


NO_OPTIONS: Final = RequestOptions()
"""Shared by all plain requests, so nobody changes it."""


class FeaturesRequest:
    """One decoded request for vectors: ``rows`` has one entry for get-features."""

    __slots__ = ("options", "rows", "service", "workspace")

    def __init__(
        self,
        workspace: str | None,
        service: str | None,
        rows: Sequence[Row],
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        self.workspace = workspace
        self.service = service
        self.rows = rows
        self.options = options


def decode_params(body: bytes) -> dict[str, Any]:
    """Return the body's ``params`` object.

    Raises:
        RequestError: not UTF-8 JSON, or no such object.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise RequestError(400, "Expected a JSON body with `params`, got an empty body") from None
        raise RequestError(
            400, f"Expected a JSON body in UTF-8, got malformed JSON: {json_fault(body, error)}"
        ) from None
    if type(document) is dict:
        params = document.get("params")
        if type(params) is dict:
            return params
        if "params" in document:
            raise bad_value("Field", "params", "object", params)
    raise RequestError(400, f"Expected a JSON object with the field `params`, got {shown(document)}")


def decode_get_features(body: bytes) -> FeaturesRequest:
    """Decode a get-features body.

    Raises:
        RequestError: malformed, or a field of the wrong type.
    """
    params = None
    try:
        params = orjson.loads(body)["params"]
        keys = params["joinKeyMap"]
        if (
            len(params) == 3
            and type(keys) is dict
            and type(workspace := params["workspaceName"]) is str
            and type(service := params["featureServiceName"]) is str
        ):
            return FeaturesRequest(workspace, service, [(keys, _NOTHING)])
    except (LookupError, TypeError, ValueError):
        pass  # what follows tells what is wrong, or reads what is only unusual
    if type(params) is not dict:
        params = decode_params(body)
    keys = params.get("joinKeyMap")
    if keys is None:
        keys = params.get("join_key_map", _NOTHING)
    context = params.get("requestContextMap")
    if context is None:
        context = params.get("request_context_map", _NOTHING)
    if type(keys) is not dict or type(context) is not dict:
        keys, context = _object("joinKeyMap", keys), _object("requestContextMap", context)
    workspace, service = params.get("workspaceName"), params.get("featureServiceName")
    if params.keys() <= PLAIN_FIELDS and type(service) is str and type(workspace) is str:
        return FeaturesRequest(workspace, service, [(keys, context)])
    return _with_options(params, [(keys, context)])


def decode_get_features_batch(body: bytes, max_rows: int) -> FeaturesRequest:
    """Decode a get-features-batch body of at most ``max_rows`` rows.

    Raises:
        RequestError: malformed, a field of the wrong type, no rows or too many.
    """
    params = decode_params(body)
    data = _either(params, "requestData", "request_data")
    if type(data) is not list or not data:
        raise bad_value("Field", "request_data", f"array of 1 to {max_rows} objects", data)
    if len(data) > max_rows:
        raise RequestError(400, f"Field `request_data`: expected at most {max_rows} rows, got {len(data)}")
    rows: list[Row] = []
    for number, row in enumerate(data):
        if type(row) is not dict:
            raise bad_value("Field", f"request_data[{number}]", "object", row)
        keys = _object(f"request_data[{number}].join_key_map", _either(row, "joinKeyMap", "join_key_map"))
        context = _object(
            f"request_data[{number}].request_context_map",
            _either(row, "requestContextMap", "request_context_map"),
        )
        rows.append((keys, context))
    return _with_options(params, rows)


def decode_metadata(body: bytes) -> FeaturesRequest:
    """Decode a metadata body: only the names count.

    Raises:
        RequestError: malformed, or a name of the wrong type.
    """
    return _with_options(decode_params(body), ())


def _either(params: Mapping[str, Any], camel: str, snake: str) -> Any:
    value = params.get(camel)
    return params.get(snake) if value is None else value


def _object(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return _NOTHING
    if type(value) is not dict:
        raise bad_value("Field", name, "object", value)
    return value


def _name(params: Mapping[str, Any], camel: str, snake: str) -> str | None:
    value = _either(params, camel, snake)
    if value is not None and type(value) is not str:
        raise bad_value("Field", camel, "string", value)
    return value


def _with_options(params: dict[str, Any], rows: Sequence[Row]) -> FeaturesRequest:
    taken = RequestOptions()
    request = FeaturesRequest(
        _name(params, "workspaceName", "workspace_name"),
        _name(params, "featureServiceName", "feature_service_name"),
        rows,
        taken,
    )
    metadata = params.get("metadataOptions")
    if metadata is None:
        metadata = params.get("metadata_options")
    if metadata is not None:
        taken.metadata = _metadata_flags(metadata)
    partial = _either(params, "allowPartialResults", "allow_partial_results")
    if partial is not None:
        taken.allow_partial = _flag("allowPartialResults", partial)
    options = params.get("requestOptions")
    if options is None:
        options = params.get("request_options")
    if options is not None:
        _take_request_options(taken, _object("requestOptions", options))
    return request


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise bad_value("Field", name, "true or false", value)
    return value


def _metadata_flags(options: Any) -> int:
    flags = 0
    known = _object("metadataOptions", options)
    for camel, snake, flag in _METADATA_OPTIONS:
        value = known.get(camel)
        if value is None:
            value = known.get(snake)
        if value is not None and _flag(f"metadataOptions.{camel}", value):
            flags |= flag
    return flags


def _take_request_options(taken: RequestOptions, options: dict[str, Any]) -> None:
    zero = _either(options, "coerceNullCountsToZero", "coerce_null_counts_to_zero")
    if zero is not None:
        taken.zero_counts = _flag("requestOptions.coerceNullCountsToZero", zero)
    extra = _either(options, "ignoreExtraRequestContextFields", "ignore_extra_request_context_fields")
    if extra is not None:
        taken.ignore_extra_context = _flag("requestOptions.ignoreExtraRequestContextFields", extra)
    reads_cache = _either(options, "readFromCache", "read_from_cache")
    if reads_cache is not None:
        taken.reads_cache = _flag("requestOptions.readFromCache", reads_cache)
    writes_cache = _either(options, "writeToCache", "write_to_cache")
    if writes_cache is not None:
        taken.writes_cache = _flag("requestOptions.writeToCache", writes_cache)
    budget = _either(options, "latencyBudgetMs", "latency_budget_ms")
    if budget is not None:
        taken.latency_budget_ms = _milliseconds("requestOptions.latencyBudgetMs", budget)


def decode_timeout_s(header: bytes) -> float:
    """Return what the header X-Request-Timeout-Ms says, in seconds.

    Raises:
        RequestError: it isn't a number of milliseconds above 0.
    """
    text = header.decode("latin-1")
    if not _DECIMAL.fullmatch(text) or not float(text) > 0:
        raise bad_value("Header", "x-request-timeout-ms", "a number of milliseconds above 0", text)
    return float(text) / 1000


def _milliseconds(name: str, value: Any) -> float:
    number = value
    if type(value) is str and _DECIMAL.fullmatch(value):
        number = float(value)
    if type(number) not in (int, float) or not number > 0:
        raise bad_value("Field", name, "a number of milliseconds above 0", value)
    return float(number)
