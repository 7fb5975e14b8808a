"""Self-describing values: rows are packed as the server packs them, and wrong answers are found."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from fastserve.tiles.layout import FORMAT
from fastserve.tiles.rows import encode_row
from perf.load.described import (
    NUMBERS,
    DescribedTable,
    is_lacking,
    lacking,
    numbers_row,
    text,
    text_row,
    value,
    values,
)
from perf.load.key_laws import entity_key
from perf.soak.account import NULLS, RIGHT, WRONG
from perf.soak.vectors import NARROW, NUMBER_TABLES, WIDE, Question, Service
from perf.soak.world import workspace_plan

VERSION = 1_790_000_000
TABLE_OF_TEXT = NUMBER_TABLES


def header_of(view: str) -> bytes:
    return bytes([FORMAT, 0, 0, 0]) + workspace_plan().views[view].layout.schema_id.to_bytes(4, "little")


def test_rows_are_those_of_the_servers_own_encoder() -> None:
    views = workspace_plan().views
    numbers = {name: float(value(7, 5, at, VERSION)) for at, name in enumerate("abc")}
    row = encode_row(views["t07"].layout, {**numbers, "version": float(VERSION)}, VERSION * 10**9)
    assert numbers_row(header_of("t07"), 7, 5, VERSION) == row
    texts = {"number": value(50, 5, 0, VERSION), "text": orjson.dumps(text(50, 5, VERSION))}
    row = encode_row(views["text0"].layout, {**texts, "version": float(VERSION)}, VERSION * 10**9)
    assert text_row(header_of("text0"), TABLE_OF_TEXT, 5, VERSION) == row


def test_many_values_at_once_are_those_of_one_by_one() -> None:
    tables, keys = np.arange(50), np.array([0, 3, 999_999])
    versions = np.full((3, 50), float(VERSION))
    found = values(tables, keys, versions)
    for row, key in enumerate(keys.tolist()):
        for table in range(50):
            expected = [float(value(table, key, feature, VERSION)) for feature in range(NUMBERS)]
            assert found[row, table].tolist() == expected
            assert lacking(tables, keys)[row, table] == is_lacking(table, key)


def test_a_table_gives_the_rows_it_has_and_none_of_those_it_lacks() -> None:
    table = DescribedTable("t", 7, b"\1" + bytes(7), has_text=False)
    lacks = next(key for key in range(100) if is_lacking(7, key))
    found = table.read([{"k": {"S": entity_key(lacks)}}, {"k": {"S": entity_key(lacks + 1)}}])
    assert found[0] is None
    assert found[1] is not None
    item = orjson.loads(found[1])
    row = base64.b64decode(item["v"]["B"])
    version = int.from_bytes(row[8:16], "little") // 10**9
    assert row == numbers_row(b"\1" + bytes(7), 7, lacks + 1, version)
    parts: list[bytes] = []
    assert table.answer([{"k": {"S": entity_key(lacks)}}], parts) == 1
    assert b"".join(parts) == b""


def vector(service: Service, entity: int, version: int = VERSION) -> list[Any]:
    """Return what is right of an entity."""
    row: list[Any] = []
    for table in range(service.numbers):
        three = [float(value(table, entity, feature, version)) for feature in range(NUMBERS)]
        row += [None] * 4 if is_lacking(table, entity) else [*three, float(version)]
    for table in range(NUMBER_TABLES, NUMBER_TABLES + service.texts):
        number = str(value(table, entity, 0, version))
        written = [number, text(table, entity, version), float(version)]
        row += [None] * 3 if is_lacking(table, entity) else written
    return row


def judged(
    question: Question, rows: list[list[Any]], statuses: list[str] | None = None
) -> tuple[str, str, int]:
    result: Any = [{"features": row} for row in rows] if question.is_batch else {"features": rows[0]}
    document: dict[str, Any] = {"result": result}
    if statuses is not None:
        document["metadata"] = {"features": [{"status": status} for status in statuses]}
    return question.judge(orjson.dumps(document), VERSION + 0.2, VERSION + 0.9)


@pytest.mark.parametrize("service", [WIDE, NARROW])
def test_a_right_answer_is_right(service: Service) -> None:
    entities = tuple(range(120))
    rows = [vector(service, entity) for entity in entities]
    assert judged(Question(service, entities, is_batch=True), rows) == (RIGHT, "", 120 * service.keys)


@pytest.mark.parametrize(
    "name, damage, what",
    [
        ("another table's", lambda row: row[4:8] + row[:4] + row[8:], "values of another row"),
        ("another key's", lambda row: [*vector(NARROW, 4)[:4], *row[4:]], "values of another row"),
        (
            "of two times",
            lambda row: [row[0], *vector(NARROW, 3, VERSION - 1)[1:4], *row[4:]],
            "values of another row",
        ),
        ("too old", lambda row: [*vector(NARROW, 3, VERSION - 12)[:4], *row[4:]], "expected a version"),
        ("too new", lambda row: [*vector(NARROW, 3, VERSION + 1)[:4], *row[4:]], "expected a version"),
        ("half null", lambda row: [None, *row[1:]], "half of a row"),
        ("null", lambda row: [None] * 4 + row[4:], "null, but there is such a row"),
        ("null text", lambda row: row[:16] + [None] * 3, "null, but there is such a row"),
        ("another text", lambda row: row[:16] + vector(NARROW, 4)[16:], "values of another row"),
        ("too short", lambda row: row[1:], "expected 1 rows of 19"),
        ("no number", lambda row: ["x", *row[1:]], "could not convert"),
    ],
)
def test_a_wrong_answer_is_wrong(name: str, damage: Any, what: str) -> None:
    del name
    question = Question(NARROW, (3,), is_batch=False)
    kind, detail, reads = judged(question, [damage(vector(NARROW, 3))])
    assert (kind, reads) == (WRONG, 0)
    assert what in detail


def test_a_value_that_there_is_not_is_wrong() -> None:
    lacks = next(key for key in range(100) if is_lacking(1, key))
    row = vector(NARROW, lacks)
    invented = [float(value(1, lacks, feature, VERSION)) for feature in range(NUMBERS)]
    row[4:8] = [*invented, float(VERSION)]
    assert "a value where there is none" in judged(Question(NARROW, (lacks,), is_batch=False), [row])[1]


def test_nulls_are_right_where_their_status_says_that_nothing_is_known() -> None:
    question = Question(NARROW, (3,), is_batch=False, is_lenient=True)
    row = [None] * 4 + vector(NARROW, 3)[4:]
    present = ["PRESENT"] * 15
    assert judged(question, [row], ["TIME_OUT"] * 4 + present) == (NULLS, "1 nulls", 4)
    assert "null, but" in judged(question, [row], ["PRESENT"] * 4 + present)[1]
    assert "MISSING_DATA, but" in judged(question, [row], ["MISSING_DATA"] * 4 + present)[1]
    unknown = vector(NARROW, 3)[:16] + [None] * 3
    assert judged(question, [unknown], ["PRESENT"] * 16 + ["UNKNOWN"] * 3)[0] == NULLS
