"""DynamoDB operations of the stand-in: a request's JSON in, an answer's bytes out.

Knows no sockets. Speaks BatchGetItem, GetItem, PutItem, UpdateItem, DeleteItem, BatchWriteItem, Query, Scan,
DescribeTable, CreateTable, ListTables, DeleteTable, UpdateTimeToLive and DescribeTimeToLive. Conditions,
updates and projections are evaluated (`perf.load.expressions`); what else would change an answer is refused
rather than ignored.

Invariants:
1. What the service refuses is refused: over 100 keys or 25 writes, duplicates, empty requests, other key
   schemas.
2. An absent item is simply absent; one over the answer's 16 MB is handed back as unprocessed.
3. A refused request changes nothing.
4. A conditional write reads, tests and writes in one step: requests are performed one after the other.
5. Items with a time to live stay until they are deleted: the service takes its time, too.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from perf.load import dynamo_error, expressions
from perf.load.expressions import Names
from perf.load.faults import Faults
from perf.load.prepared_answer import PreparedAnswers
from perf.load.query import query
from perf.load.tables import JsonObject, StoredTable, Table, check_size, item_size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

READ_MAX_KEYS = 100
READ_MAX_BYTES = 16 * 1024 * 1024
WRITE_MAX_ITEMS = 25
_LIST_MAX_TABLES = 100
_SCAN_MAX_BYTES = 1024 * 1024
_WRITE_UNIT_BYTES = 1024
_REFUSED = ("AttributesToGet", "AttributeUpdates", "Expected", "ScanFilter", "FilterExpression")


class Store:
    """All tables, and the operations on them."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.keys = 0
        self.absent_keys = 0
        self.unprocessed_keys = 0
        self.write_units = 0
        # Table name -> what stands before its items in an answer.
        self._heads: dict[str, bytes] = {}
        # Prepared tables whose items are given whole, whatever of them is asked for.
        self.whole_items: set[str] = set()
        self.prepared = PreparedAnswers()
        self._operations: dict[str, Callable[[JsonObject], bytes]] = {
            "BatchGetItem": self.batch_get_item,
            "GetItem": self.get_item,
            "PutItem": self.put_item,
            "UpdateItem": self.update_item,
            "DeleteItem": self.delete_item,
            "BatchWriteItem": self.batch_write_item,
            "Scan": self.scan,
            "DescribeTable": self.describe_table,
            "CreateTable": self.create_table,
            "DeleteTable": self.delete_table,
            "ListTables": self.list_tables,
            "UpdateTimeToLive": self.update_time_to_live,
            "DescribeTimeToLive": self.describe_time_to_live,
            "Query": self.query,
        }

    def perform(self, operation: str, body: bytes) -> bytes:
        """Run one operation.

        Raises:
            DynamoError: what the service would answer with an error.
        """
        run = self._operations.get(operation)
        if run is None:
            raise dynamo_error.unknown_operation(operation)
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise dynamo_error.serialization(str(error)) from None
        if not isinstance(request, dict):
            raise dynamo_error.serialization("Start of structure or map found where not expected.")
        self.calls[operation] += 1
        try:
            return run(request)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise dynamo_error.serialization(f"malformed {operation}: {error!r}"[:200]) from None

    def batch_get_item(self, request: JsonObject) -> bytes:
        """Read up to 100 keys across tables."""
        wanted: JsonObject = request["RequestItems"]
        count = _count_keys(wanted)
        whole = not self.faults.active
        for name, entry in wanted.items():
            if len(entry) > 1 and name not in self.whole_items:
                _refuse_expressions(entry)
                whole = whole and "ProjectionExpression" not in entry
        answer = self._read_all(wanted) if whole else None
        if answer is None or len(answer) > READ_MAX_BYTES:
            answer = self._read_in_part(wanted, count)
        self.keys += count
        return answer

    def _read_all(self, wanted: JsonObject) -> bytes:
        """Answer all keys: the path that a measured server takes, so it is the short one."""
        tables, heads = self.tables, self._heads
        parts: list[bytes] = []
        absent = 0
        for name, entry in wanted.items():
            table = tables.get(name)
            if table is None:
                raise _no_table(name)
            parts.append(heads.get(name) or self._head(name))
            absent += table.answer(entry["Keys"], parts)
        self.absent_keys += absent
        # Every table's part begins with the end of the one before: the first one's is cut off.
        return b'{"Responses":{' + b"".join(parts)[2:] + b']},"UnprocessedKeys":{}}'

    def _head(self, name: str) -> bytes:
        self._heads[name] = b"]," + orjson.dumps(name) + b":["
        return self._heads[name]

    def _read_in_part(self, wanted: JsonObject, count: int) -> bytes:
        """Answer what faults and the 16 MB leave, in the order that they leave it in."""
        held_back = self.faults.unprocessed("BatchGetItem", count)
        parts: list[bytes] = []
        unprocessed: JsonObject = {}
        room_bytes = READ_MAX_BYTES
        position = 0
        for name, entry in wanted.items():
            keys = entry["Keys"]
            project = _projection(entry)
            items = [None if item is None else project(item) for item in self._table(name).read(keys)]
            self.absent_keys += items.count(None)
            present, returned = _split(keys, items, held_back, position, room_bytes)
            if returned:
                unprocessed[name] = {**entry, "Keys": returned}
                self.unprocessed_keys += len(returned)
            room_bytes -= sum(map(len, present))
            position += len(keys)
            parts.append(orjson.dumps(name) + b":[" + b",".join(self.faults.order(present)) + b"]")
        tail = orjson.dumps(unprocessed)
        return b'{"Responses":{' + b",".join(parts) + b'},"UnprocessedKeys":' + tail + b"}"

    def get_item(self, request: JsonObject) -> bytes:
        """Read one key."""
        _refuse_expressions(request)
        project = _projection(request)
        (item,) = self._table(request["TableName"]).read([request["Key"]])
        self.keys += 1
        if item is None:
            self.absent_keys += 1
            return b"{}"
        return b'{"Item":' + project(item) + b"}"

    def put_item(self, request: JsonObject) -> bytes:
        """Keep one item, if the condition holds for what is there."""
        names = _names(request)
        condition = _condition(request, names)
        names.finish()
        table, item = self._table(request["TableName"]), request["Item"]
        old = self._tested(table, item, condition, request)
        table.put(item)
        self._charge(old, item)
        return _returned(request, old, item)

    def update_item(self, request: JsonObject) -> bytes:
        """Change one item, or make it, if the condition holds for what is there."""
        names = _names(request)
        condition = _condition(request, names)
        key: JsonObject = request["Key"]
        update = None
        if "UpdateExpression" in request:
            update = expressions.update(request["UpdateExpression"], names, key)
        names.finish()
        table = self._table(request["TableName"])
        old = self._tested(table, key, condition, request)
        made = {**key, **(old or {})}
        if update is not None:
            made = update(made)
        table.put(made)
        self._charge(old, made)
        return _returned(request, old, made)

    def delete_item(self, request: JsonObject) -> bytes:
        """Forget one item, if the condition holds for what is there."""
        names = _names(request)
        condition = _condition(request, names)
        names.finish()
        table = self._table(request["TableName"])
        old = self._tested(table, request["Key"], condition, request)
        table.delete(request["Key"])
        self._charge(old, {})
        return _returned(request, old, None)

    def _tested(
        self, table: Table, item: JsonObject, condition: expressions.Test | None, request: JsonObject
    ) -> JsonObject | None:
        """Give what is under an item's key; refuse the write unless the condition holds for it."""
        key = {part["AttributeName"]: item.get(part["AttributeName"]) for part in _key_schema(table)}
        (text,) = table.read([key])
        table.keys_read -= 1
        old: JsonObject | None = None if text is None else orjson.loads(text)
        if condition is not None and not condition(old or {}):
            self._charge(old, {})
            wanted = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            raise dynamo_error.condition_failed(old if wanted else None)
        return old

    def _charge(self, old: JsonObject | None, made: JsonObject) -> None:
        """Count what a write costs: the larger of both items, a failed condition the one that is there."""
        size = max(item_size_bytes(old or {}), item_size_bytes(made))
        self.write_units += max(1, -(-size // _WRITE_UNIT_BYTES))

    def scan(self, request: JsonObject) -> bytes:
        """Read a table's items page by page, whole or in segments."""
        _refuse_expressions(request)
        project = _projection(request)
        table = self._table(request["TableName"])
        segments = request.get("TotalSegments", 1)
        if ("Segment" in request) != ("TotalSegments" in request) or request.get("Segment", 0) >= segments:
            raise dynamo_error.validation("The Segment parameter must be less than TotalSegments")
        limit = request.get("Limit")
        if limit is not None and limit < 1:
            raise dynamo_error.validation("Limit must be greater than or equal to 1")
        items: list[bytes] = []
        room_bytes = _SCAN_MAX_BYTES
        last = None
        for item in table.scan(request.get("ExclusiveStartKey"), request.get("Segment", 0), segments):
            room_bytes -= item_size_bytes(orjson.loads(item))
            items.append(project(item))
            if len(items) == limit or room_bytes <= 0:
                # As the service: a page that was cut says so, even if nothing comes after it.
                stored = orjson.loads(item)
                last = {part["AttributeName"]: stored[part["AttributeName"]] for part in _key_schema(table)}
                break
        tail = b"" if last is None else b',"LastEvaluatedKey":' + orjson.dumps(last)
        count = b'"Count":%d,"ScannedCount":%d' % (len(items), len(items))
        return b'{"Items":[' + b",".join(items) + b"]," + count + tail + b"}"

    def query(self, request: JsonObject) -> bytes:
        """Read the items of one partition."""
        table = self._table(request["TableName"])
        if not isinstance(table, StoredTable):
            raise dynamo_error.validation("a prepared table has no partitions")
        return query(table.texts(), table.description["KeySchema"], request)

    def batch_write_item(self, request: JsonObject) -> bytes:
        """Put and delete up to 25 items across tables."""
        wanted: JsonObject = request["RequestItems"]
        writes = [(name, write) for name, entries in wanted.items() for write in entries]
        if not writes or len(writes) > WRITE_MAX_ITEMS:
            raise dynamo_error.validation("Too many items requested for the BatchWriteItem call")
        identities = {(name, self._table(name).identify(_written(write))) for name, write in writes}
        if len(identities) != len(writes):
            raise dynamo_error.validation("Provided list of item keys contains duplicates")
        for _, write in writes:
            check_size(_written(write))
        held_back = self.faults.unprocessed("BatchWriteItem", len(writes))
        unprocessed: dict[str, list[JsonObject]] = {}
        for index, (name, write) in enumerate(writes):
            if index in held_back:
                unprocessed.setdefault(name, []).append(write)
                continue
            self._charge(None, _written(write))
            if "PutRequest" in write:
                self._table(name).put(write["PutRequest"]["Item"])
            else:
                self._table(name).delete(write["DeleteRequest"]["Key"])
        return orjson.dumps({"UnprocessedItems": unprocessed})

    def describe_table(self, request: JsonObject) -> bytes:
        """Tell a table's schema."""
        return orjson.dumps({"Table": self._table(request["TableName"], administration=True).description})

    def create_table(self, request: JsonObject) -> bytes:
        """Make an empty table, ready at once."""
        name = request["TableName"]
        if name in self.tables:
            raise dynamo_error.in_use(name)
        table = StoredTable(name, request["KeySchema"], request["AttributeDefinitions"])
        self.tables[name] = table
        return orjson.dumps({"TableDescription": table.description})

    def delete_table(self, request: JsonObject) -> bytes:
        """Drop a table with its items."""
        table = self._table(request["TableName"], administration=True)
        del self.tables[request["TableName"]]
        self.prepared.remove(request["TableName"])
        return orjson.dumps({"TableDescription": {**table.description, "TableStatus": "DELETING"}})

    def list_tables(self, request: JsonObject) -> bytes:
        """Name the tables, page by page."""
        limit = request.get("Limit", _LIST_MAX_TABLES)
        names = [name for name in sorted(self.tables) if name > request.get("ExclusiveStartTableName", "")]
        answer: dict[str, Any] = {"TableNames": names[:limit]}
        if len(names) > limit:
            answer["LastEvaluatedTableName"] = names[limit - 1]
        return orjson.dumps(answer)

    def update_time_to_live(self, request: JsonObject) -> bytes:
        """Name the attribute by which items expire, or none."""
        table = self._table(request["TableName"], administration=True)
        wanted = request["TimeToLiveSpecification"]
        name, enabled = str(wanted["AttributeName"]), bool(wanted["Enabled"])
        if enabled == (table.time_to_live is not None):
            raise dynamo_error.validation(f"TimeToLive is already {'enabled' if enabled else 'disabled'}")
        table.time_to_live = name if enabled else None
        return orjson.dumps({"TimeToLiveSpecification": {"AttributeName": name, "Enabled": enabled}})

    def describe_time_to_live(self, request: JsonObject) -> bytes:
        """Tell by which attribute items expire."""
        name = self._table(request["TableName"], administration=True).time_to_live
        told = {"TimeToLiveStatus": "DISABLED"}
        if name is not None:
            told = {"TimeToLiveStatus": "ENABLED", "AttributeName": name}
        return orjson.dumps({"TimeToLiveDescription": told})

    def _table(self, name: str, *, administration: bool = False) -> Table:
        table = self.tables.get(name)
        if table is None:
            raise _no_table(name, administration=administration)
        return table


def _split(
    keys: list[JsonObject], items: list[bytes | None], held_back: set[int], start: int, room_bytes: int
) -> tuple[list[bytes], list[JsonObject]]:
    """Part one table's items into those answered and the keys handed back."""
    answered: list[bytes] = []
    returned: list[JsonObject] = []
    for index, (key, item) in enumerate(zip(keys, items, strict=True), start):
        size = len(item or b"")
        if index in held_back or size > room_bytes:
            returned.append(key)
        elif item is not None:
            room_bytes -= size
            answered.append(item)
    return answered, returned


def _no_table(name: str, *, administration: bool = False) -> dynamo_error.DynamoError:
    more = f": Table: {name[:64]} not found" if administration else ""
    return dynamo_error.not_found("Requested resource not found" + more)


def _count_keys(wanted: JsonObject) -> int:
    count = 0
    for entry in wanted.values():
        keys = entry["Keys"]
        if not keys:
            raise dynamo_error.validation(
                "1 validation error detected: Value at 'requestItems.member.keys' is empty"
            )
        count += len(keys)
    if not count:
        raise dynamo_error.validation(
            "1 validation error detected: Value at 'requestItems' failed to satisfy constraint"
        )
    if count > READ_MAX_KEYS:
        raise dynamo_error.validation("Too many items requested for the BatchGetItem call")
    return count


def _written(write: JsonObject) -> JsonObject:
    if "PutRequest" in write:
        item: JsonObject = write["PutRequest"]["Item"]
        return item
    key: JsonObject = write["DeleteRequest"]["Key"]
    return key


def _key_schema(table: Table) -> list[JsonObject]:
    schema: list[JsonObject] = table.description["KeySchema"]
    return schema


def _names(request: JsonObject) -> Names:
    _refuse_expressions(request)
    return Names(request)


def _condition(request: JsonObject, names: Names) -> expressions.Test | None:
    text = request.get("ConditionExpression")
    return None if text is None else expressions.condition(text, names)


def _projection(request: JsonObject) -> Callable[[bytes], bytes]:
    """Give what cuts an item's text down to the attributes that a request names."""
    text = request.get("ProjectionExpression")
    if text is None:
        return _as_it_is
    names = Names(request)
    paths = expressions.projection(text, names)
    names.finish()

    def project(item: bytes) -> bytes:
        stored = orjson.loads(item)
        return orjson.dumps({path: stored[path] for path in paths if path in stored})

    return project


def _as_it_is(item: bytes) -> bytes:
    return item


def _returned(request: JsonObject, old: JsonObject | None, made: JsonObject | None) -> bytes:
    """Give a write's answer, with the item before or after it where it was asked for."""
    wanted = request.get("ReturnValues", "NONE")
    if wanted not in {"NONE", "ALL_OLD", "ALL_NEW"}:
        raise dynamo_error.validation(f"the stand-in does not return {wanted[:64]}")
    item = {"NONE": None, "ALL_OLD": old, "ALL_NEW": made}[wanted]
    return b"{}" if item is None else orjson.dumps({"Attributes": item})


def _refuse_expressions(request: JsonObject) -> None:
    for name in _REFUSED:
        if name in request:
            raise dynamo_error.validation(f"the stand-in does not evaluate {name}")
