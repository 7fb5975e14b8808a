"""The stand-in's Query: items of one partition in the order of their sort keys, page by page.

Knows no sockets. It reads key conditions in the forms that the service documents and nothing else:
`p = :p`, and with it `s = :s`, `s < :s` (and `<=`, `>`, `>=`), `s BETWEEN :a AND :b` or `begins_with(s, :s)`.
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html

Invariants:
1. Sort keys compare as the service compares them: strings by their UTF-8 bytes, numbers by value.
2. What it can't evaluate is refused, never passed over.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from perf.load.dynamo_error import validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf.load.tables import JsonObject

_KNOWN = {
    "TableName",
    "KeyConditionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ConsistentRead",
    "Limit",
    "ScanIndexForward",
    "ExclusiveStartKey",
    "ReturnConsumedCapacity",
}
_NAME, _VALUE = r"(#?[\w.-]+)", r"(:\w+)"
_PARTITION = re.compile(rf"\s*{_NAME}\s*=\s*{_VALUE}\s*(?:AND\s+(.+))?", re.DOTALL | re.IGNORECASE)
_COMPARED = re.compile(rf"{_NAME}\s*(=|<=|<|>=|>)\s*{_VALUE}\s*")
_BETWEEN = re.compile(rf"{_NAME}\s+BETWEEN\s+{_VALUE}\s+AND\s+{_VALUE}\s*", re.IGNORECASE)
_BEGINS = re.compile(rf"begins_with\s*\(\s*{_NAME}\s*,\s*{_VALUE}\s*\)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def query(items: Iterable[bytes], key_schema: list[JsonObject], request: JsonObject) -> bytes:
    """Answer a Query over a table's items.

    Raises:
        DynamoError: a parameter or a condition that the stand-in doesn't evaluate.
    """
    unknown = set(request) - _KNOWN
    if unknown:
        raise validation(f"the stand-in does not evaluate {min(unknown)}")
    names = [str(part["AttributeName"]) for part in key_schema]
    matches = _condition(request, names)
    found = [item for text in items if matches(item := orjson.loads(text))]
    if len(names) > 1:
        found.sort(
            key=lambda item: _comparable(item[names[1]]), reverse=not request.get("ScanIndexForward", True)
        )
    start = request.get("ExclusiveStartKey")
    if start is not None:
        keys = [{name: item[name] for name in names} for item in found]
        found = found[keys.index(start) + 1 :] if start in keys else []
    page = found[: request.get("Limit", len(found))]
    answer: JsonObject = {"Items": page, "Count": len(page), "ScannedCount": len(page)}
    if len(page) < len(found):
        answer["LastEvaluatedKey"] = {name: page[-1][name] for name in names}
    return orjson.dumps(answer)


def _condition(request: JsonObject, names: list[str]) -> Callable[[JsonObject], bool]:
    text = request.get("KeyConditionExpression", "")
    aliases, values = request.get("ExpressionAttributeNames", {}), request["ExpressionAttributeValues"]
    found = _PARTITION.fullmatch(text)
    if found is None or aliases.get(found[1], found[1]) != names[0]:
        raise validation("Query condition missed key schema element: " + names[0])
    partition = values[found[2]]
    sort = _sort_condition(found[3], aliases, values, names) if found[3] else None
    return lambda item: item[names[0]] == partition and (sort is None or sort(_comparable(item[names[1]])))


def _sort_condition(
    text: str, aliases: dict[str, str], values: JsonObject, names: list[str]
) -> Callable[[Any], bool]:
    compared, between, begins = (form.fullmatch(text) for form in (_COMPARED, _BETWEEN, _BEGINS))
    found = compared or between or begins
    if found is None or aliases.get(found[1], found[1]) not in names[1:]:
        raise validation(f"Query key condition not supported: {text[:64]}")
    if compared:
        compare, right = _COMPARE[compared[2]], _comparable(values[compared[3]])
        return lambda left: compare(left, right)
    if between:
        low, high = (_comparable(values[between[place]]) for place in (2, 3))
        return lambda left: bool(low <= left <= high)
    assert begins is not None
    start = _comparable(values[begins[2]])
    return lambda left: bool(left.startswith(start))


def _comparable(value: JsonObject) -> Any:
    (kind, text), *_ = value.items()
    return Decimal(text) if kind == "N" else str(text).encode()
