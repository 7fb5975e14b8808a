"""Plain answers, read without a JSON parser, say what a JSON parser says; all others are refused."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb import batch_get
from fastserve.store.dynamodb.batch_get import BatchGetCodec
from fastserve.store.dynamodb.plain_items import never
from fastserve.tiles.layout import NO_ROW
from tests.support.guarded import guarded_memory

native = pytest.importorskip("fastserve.store.dynamodb._plain_items", reason="no C compiler was there")

Tables = dict[str, list[dict[str, str]]]

TEXTS = st.text(st.characters(max_codepoint=0x7F), max_size=40)
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'))
ROWS = st.binary(max_size=100).map(lambda row: base64.b64encode(row).decode())
ITEMS = st.fixed_dictionaries({"k": TEXTS}).flatmap(
    lambda item: st.dictionaries(NAMES.filter(lambda name: name != "k"), ROWS, max_size=4).map(
        lambda rows: item | rows
    )
)
TABLES = st.dictionaries(NAMES, st.lists(ITEMS, max_size=5), max_size=4)

ONE = b'{"Responses":{"t":[{"k":{"S":"a"},"v":{"B":"AAAA"}}]},"UnprocessedKeys":{}}'
REPLACED_BY = [b"", b'"', b"{", b"}", b",", b"\\", b"\xff", b"k", b" "]


def document(tables: Tables) -> dict[str, Any]:
    """Return tables as the service has them: with a type before each value."""
    typed = {
        table: [
            {name: {"S" if name == "k" else "B": value} for name, value in item.items()} for item in items
        ]
        for table, items in tables.items()
    }
    return {"Responses": typed, "UnprocessedKeys": {}}


@given(TABLES)
def test_an_answer_is_read_as_by_a_json_parser_or_refused(tables: Tables) -> None:
    text = orjson.dumps(document(tables))
    is_plain = b"\\" not in text
    assert native.plain_items(text) == (tables if is_plain else None)


def damaged(text: bytes, data: st.DataObject, most: int) -> bytes:
    """Return a text with up to so many places drawn in which up to two bytes are others."""
    for _ in range(data.draw(st.integers(0, most))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(REPLACED_BY)) + text[at + data.draw(st.integers(0, 2)) :]
    return text


@given(TABLES, st.data())
def test_a_damaged_answer_is_refused_or_still_means_the_same(tables: Tables, data: st.DataObject) -> None:
    text = damaged(orjson.dumps(document(tables)), data, 3)
    items = native.plain_items(text)
    if items is not None:
        parsed = orjson.loads(text)
        assert document(items)["Responses"] == parsed["Responses"]
        assert not parsed.get("UnprocessedKeys")


def test_an_answer_that_is_cut_anywhere_is_refused() -> None:
    # Of a longer buffer, so that reading on would find what lacks.
    whole = memoryview(ONE)
    assert native.plain_items(whole) == {"t": [{"k": "a", "v": "AAAA"}]}
    assert [length for length in range(len(ONE)) if native.plain_items(whole[:length]) is not None] == []


def test_nothing_behind_an_answer_is_read_wherever_it_is_cut() -> None:
    memory = guarded_memory(len(ONE))
    for length in range(len(ONE) + 1):
        answer = memory[len(ONE) - length :]
        answer[:] = ONE[:length]
        assert (native.plain_items(answer) is None) == (length < len(ONE))


@pytest.mark.parametrize(
    "text",
    [
        ONE + b" ",
        b" " + ONE,
        ONE.replace(b":", b": "),
        ONE.replace(b'"S"', b'"N"'),
        ONE.replace(b'"B":"AAAA"', b'"B":null'),
        ONE.replace(b'"B":"AAAA"', b'"NULL":true'),
        ONE.replace(b'"B":"AAAA"', b'"S":"AAAA"'),
        ONE.replace(b"AAAA", b"AA\\/A"),
        ONE.replace(b'"a"', '"ä"'.encode()),
        ONE.replace(b'"a"', b'"\x1f"'),
        ONE.replace(b'"v"', b'"k"'),
        ONE.replace(b'{"k":{"S":"a"},"v":{"B":"AAAA"}}', b"{}"),
        ONE.replace(b'"v"', b'"' + b"v" * 256 + b'"'),
        ONE.replace(b'"AAAA"}', b'"AAAA"},"v":{"B":"AAAA"}'),
        ONE.replace(b"]}", b'],"t":[]}'),
        ONE.replace(b'"UnprocessedKeys":{}', b'"UnprocessedKeys":{"t":{"Keys":[]}}'),
        ONE.replace(b'"UnprocessedKeys":{}', b'"ConsumedCapacity":[]'),
        b"[]",
        b"null",
        b"",
    ],
)
def test_anything_else_than_plain_is_refused(text: bytes) -> None:
    assert native.plain_items(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"Responses":{}}',
        b'{"Responses":{},"UnprocessedKeys":{}}',
        b'{"UnprocessedKeys":{},"Responses":{}}',
        b'{"Responses":{"t":[]},"UnprocessedKeys":{}}',
    ],
)
def test_an_answer_without_items_is_plain(text: bytes) -> None:
    assert native.plain_items(text) == orjson.loads(text)["Responses"]


def test_more_names_than_are_kept_are_read() -> None:
    tables = {f"table_{number}": [{"k": "a", f"name_{number}": "AAAA"}] for number in range(2_000)}
    for _ in range(2):
        assert native.plain_items(orjson.dumps(document(tables))) == tables


@pytest.mark.parametrize("attributes", [(), ("v", "w", "x")])
def test_rows_are_filled_in_alike_with_and_without_it(
    monkeypatch: pytest.MonkeyPatch, attributes: tuple[str, ...]
) -> None:
    tables = ("one",) if attributes else ("one", "two")
    left_out = {"k": "c", "v": base64.b64encode(NO_ROW).decode()}
    answer = orjson.dumps(
        document(
            {
                "one": [{"k": "b", "v": "AAAA"}, {"k": "a", "w": "BBBB"}, left_out],
                "two": [{"v": "CCCC", "k": "a"}],
            }
        )
    )

    def rows() -> list[list[Any]]:
        group = ReadGroup(0, tables, attributes=attributes)
        reads = [KeyRead(group, key, 0.0) for key in "abc"]
        assert BatchGetCodec().fill(answer, reads) == {}
        return [list(read.rows) for read in reads]

    by_loop = rows()
    assert by_loop[2][0] == left_out["v"]
    monkeypatch.setattr(batch_get, "plain_items", never)
    assert rows() == by_loop


@given(
    st.fixed_dictionaries(
        {},
        optional={
            table: st.lists(
                st.fixed_dictionaries({"k": st.sampled_from("abz")}, optional={"v": ROWS, "w": ROWS}),
                max_size=4,
            )
            for table in ("one", "two", "bundle")
        },
    ),
    st.data(),
)
def test_any_answer_fills_in_the_same_rows_with_and_without_it(tables: Tables, data: st.DataObject) -> None:
    answer = damaged(orjson.dumps(document(tables)), data, 1)
    groups = [ReadGroup(0, ("one", "two")), ReadGroup(1, ("bundle",), attributes=("v", "w", "x"))]

    def rows(loop: Any) -> tuple[Any, Any]:
        reads = [KeyRead(group, key, 0.0) for group in groups for key in "abc"]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(batch_get, "plain_items", loop)
            try:
                unprocessed = BatchGetCodec().fill(answer, reads)
            except StoreError as error:
                return StoreError, error.message
        return unprocessed, [list(read.rows) for read in reads]

    assert rows(native.plain_items) == rows(never)
