"""Feast's HTTP API: bodies of `POST /get-online-features`, its answers, and errors as Feast's SDK reads them.

A request names features of views, or a feature service, and has a column of values for each join key; the
answer has, for each column and each feature, a list of values, of statuses and of times.

Invariants
1. Every refusal is a `FeastFault`: what FastAPI would refuse for Feast (a field that lacks or has another
   type) is 422 in FastAPI's form; a name that nobody knows is 404, any other fault of the caller's 400, in
   the form that Feast's SDK makes exceptions of.
2. Columns have the types and lengths that keys are made of; nothing above asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fastserve.api.encode_on_demand import json_float
from fastserve.errors import RequestError, shown
from fastserve.plan.feast import FeastPlan, FeastSelection, FeastViewPlan
from fastserve.serving.feast import NOT_FOUND, PRESENT, PartColumns
from fastserve.serving.feast_items import NO_TIME

VIEW_UNKNOWN = "FeatureViewNotFoundException"
SERVICE_UNKNOWN = "FeatureServiceNotFoundException"
OBJECT_UNKNOWN = "FeastObjectNotFoundException"
NAMES_COLLIDE = "FeatureNameCollisionError"
ANY_FAULT = "FeastError"

NO_TIME_JSON = orjson.dumps(NO_TIME)
PRESENT_JSON = orjson.dumps(PRESENT)


class FeastFault(RequestError):
    """A fault of the caller's. ``kind`` is the exception that Feast's SDK is to raise."""

    def __init__(self, status: int, message: str, kind: str = ANY_FAULT, place: Sequence[str] = ()) -> None:
        super().__init__(status, message)
        self.kind = kind
        self.place = place


@dataclass(slots=True)
class FeastRequest:
    """A decoded request: ``features`` are references as they came, none where a service is named."""

    columns: dict[str, list[Any]]
    service: str | None
    features: list[str]
    full_names: bool


def decode_feast_request(body: bytes) -> FeastRequest:
    """Decode a body.

    Raises:
        FeastFault: 422, it has another form.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed((), f"expected JSON in UTF-8, got malformed JSON: {error.msg[:64]}") from None
    if type(document) is not dict:
        raise _malformed((), f"expected an object, got {shown(document)}")
    columns = document.get("entities")
    if type(columns) is not dict:
        got = shown(columns) if "entities" in document else "none"
        raise _malformed(("entities",), f"expected an object of arrays, got {got}")
    for name, values in columns.items():
        if type(values) is not list:
            raise _malformed(("entities", name[:64]), f"expected an array, got {shown(values)}")
    service = document.get("feature_service")
    if service is not None and type(service) is not str:
        raise _malformed(("feature_service",), f"expected a string or null, got {shown(service)}")
    features = document.get("features", [])
    if type(features) is not list or not all(type(each) is str for each in features):
        raise _malformed(("features",), f"expected an array of strings, got {shown(features)}")
    full_names = document.get("full_feature_names", False)
    if type(full_names) is not bool:
        raise _malformed(("full_feature_names",), f"expected true or false, got {shown(full_names)}")
    return FeastRequest(columns, service or None, features, full_names)


def _malformed(place: Sequence[str], message: str) -> FeastFault:
    field = f"Field `{'.'.join(place)}`" if place else "Body"
    return FeastFault(422, f"{field}: {message}", place=place)


def selections_of(plan: FeastPlan, request: FeastRequest) -> tuple[FeastSelection, ...]:
    """Return what a request reads of which views, in the order in which it names them.

    Raises:
        FeastFault: it names what there isn't, nothing at all, or a feature twice.
    """
    if request.service is not None:
        found = _of_service(plan, request.service)
    elif request.features:
        found = _of_features(plan, request.features)
    else:
        raise FeastFault(400, "Expected `features` or a `feature_service`, got neither")
    _check_names(found, full_names=request.full_names)
    return found


def _of_service(plan: FeastPlan, name: str) -> tuple[FeastSelection, ...]:
    found = plan.services.get(name)
    if found is not None:
        return found
    if name in plan.unserved:
        why = plan.unserved[name]
        raise FeastFault(400, f"Feature service {shown(name)} isn't served by this API: {why}")
    raise FeastFault(404, f"Feature service {shown(name)} does not exist", SERVICE_UNKNOWN)


def _of_features(plan: FeastPlan, references: Sequence[str]) -> tuple[FeastSelection, ...]:
    chosen: dict[str, list[str]] = {}
    for reference in references:
        name, colon, feature = reference.partition(":")
        if not colon:
            raise FeastFault(400, f"Feature {shown(reference)}: expected <view>:<feature>")
        view = plan.views.get(name)
        if view is None:
            name, view = _unversioned(plan, name, reference)
        if feature not in view.features:
            raise FeastFault(
                404, f"Feature view {shown(name)} has no feature {shown(feature)}", OBJECT_UNKNOWN
            )
        chosen.setdefault(name, []).append(feature)
    views = plan.views
    return tuple(
        FeastSelection(views[name], name, tuple(features), views[name].join_keys)
        for name, features in chosen.items()
    )


def _unversioned(plan: FeastPlan, name: str, reference: str) -> tuple[str, FeastViewPlan]:
    plain, at, version = name.partition("@")
    view = plan.views.get(plain)
    if view is None:
        raise FeastFault(404, f"Feature view {shown(plain)} does not exist", VIEW_UNKNOWN)
    if at and version and version.lower() != "latest":
        raise FeastFault(400, f"Feature {shown(reference)}: only the newest version of a view is served")
    return plain, view


def _check_names(selections: Sequence[FeastSelection], *, full_names: bool) -> None:
    seen: set[str] = set()
    for name in result_names(selections, full_names=full_names):
        if name in seen:
            hint = "" if full_names else "; `full_feature_names` tells features of different views apart"
            raise FeastFault(400, f"Two features are named {shown(name)}{hint}", NAMES_COLLIDE)
        seen.add(name)


def result_names(selections: Sequence[FeastSelection], *, full_names: bool) -> list[str]:
    """Return the names of a request's features, in the order in which they are answered."""
    if full_names:
        return [f"{each.name}__{feature}" for each in selections for feature in each.features]
    return [feature for each in selections for feature in each.features]


# --- the answer ------------------------------------------------------------------------------------------


def encode_feast_answer(
    echoed: Mapping[str, list[Any]], parts: Sequence[PartColumns], names: Sequence[str], rows: int
) -> list[bytes]:
    """Return the answer in pieces: the request's join keys with their values, then the features."""
    present = _repeated(PRESENT_JSON, rows)
    no_times = _repeated(NO_TIME_JSON, rows)
    results = [_result(orjson.dumps(values), present, no_times) for values in echoed.values()]
    for part in parts:
        times = orjson.dumps(part.times)
        statuses = _statuses(part.row_statuses, rows) if part.row_statuses else present
        for number, values in enumerate(part.values):
            lines = part.lacking.get(number) if part.lacking else None
            own = statuses
            if lines is not None:
                own = _statuses({**dict.fromkeys(lines, NOT_FOUND), **part.row_statuses}, rows)
            results.append(_result(_values(values), own, times))
    named = orjson.dumps([*echoed, *names])
    return [b'{"results":[', b",".join(results), b'],"metadata":{"feature_names":', named, b"}}"]


def _values(values: list[Any]) -> bytes:
    dumped = orjson.dumps(values)
    if b"null" not in dumped:  # what JSON has no number for is written as null
        return dumped
    return orjson.dumps([_with_texts(value) for value in values])


def _with_texts(value: Any) -> Any:
    """Return a value with texts for the floats that JSON has no number for, as protobuf's JSON has them."""
    if type(value) is float:
        return json_float(value)
    if type(value) is list:
        return [_with_texts(each) for each in value]
    if type(value) is dict:
        return {name: _with_texts(each) for name, each in value.items()}
    return value


def _result(values: bytes, statuses: bytes, times: bytes) -> bytes:
    return b'{"values":%b,"statuses":%b,"event_timestamps":%b}' % (values, statuses, times)


def _statuses(by_line: Mapping[int, str], rows: int) -> bytes:
    return orjson.dumps([by_line.get(line, PRESENT) for line in range(rows)])


def _repeated(text: bytes, count: int) -> bytes:
    return b"[" + b",".join([text] * count) + b"]"


def feast_error_body(error: RequestError) -> bytes:
    """Return an error's body: Feast's SDK raises the exception that it names, with the message."""
    if error.status == 422:
        place = ["body", *(error.place if isinstance(error, FeastFault) else ())]
        return orjson.dumps({"detail": [{"type": "value_error", "loc": place, "msg": _plain(error.message)}]})
    kind = error.kind if isinstance(error, FeastFault) else ANY_FAULT
    detail = {"module": "feast.errors", "class": kind, "message": _plain(error.message)}
    return orjson.dumps(orjson.dumps(detail).decode())


def _plain(message: str) -> str:
    """Return the message; what has no UTF-8 is escaped."""
    return message if message.isascii() else message.encode("utf-8", "backslashreplace").decode()
