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
from fastserve.store.dynamodb.plain_rows import never
from fastserve.tiles.layout import NO_ROW
from tests.support.guarded import guarded_memory

native = pytest.importorskip("fastserve.store.dynamodb._plain_rows", reason="no C compiler was there")

Tables = dict[str, list[dict[str, str]]]
Rows = dict[str, dict[str, list[str | None]]]
"""By table and key a row, or what is in each attribute of a bundle."""

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


def by_the_loop(answer: bytes | memoryview, tables: Tables, *, bundles: bool = False) -> Rows | None:
    """Return what the loop fills in of answers about all keys of these tables; None where it refuses."""
    rows: Rows = {}
    groups = []
    for table, items in tables.items():
        names = attributes_of(items) if bundles else [table]
        rows[table] = {item["k"]: [None] * len(names) for item in items}
        slots = {name: slot for slot, name in enumerate(names)}
        groups.append((slots, table if bundles else None, rows[table]))
    return rows if native.fill_rows(answer, groups) else None


def by_a_parser(responses: dict[str, Any], tables: Tables, *, bundles: bool = False) -> Rows:
    """Return the same by way of objects."""
    rows: Rows = {}
    for table, items in tables.items():
        names = attributes_of(items)
        rows[table] = {item["k"]: [None] * (len(names) if bundles else 1) for item in items}
        for item in responses.get(table, ()):
            found = [item[name]["B"] if name in item else None for name in names]
            rows[table][item["k"]["S"]] = found if bundles else [item["v"]["B"] if "v" in item else ""]
    return rows


def attributes_of(items: list[dict[str, str]]) -> list[str]:
    return sorted({name for item in items for name in item} - {"k"}) or ["none"]


@given(TABLES, st.booleans())
def test_an_answer_is_read_as_by_a_json_parser_or_refused(tables: Tables, bundles: bool) -> None:
    text = orjson.dumps(document(tables))
    is_plain = b"\\" not in text
    expected = by_a_parser(document(tables)["Responses"], tables, bundles=bundles)
    assert by_the_loop(text, tables, bundles=bundles) == (expected if is_plain else None)


def damaged(text: bytes, data: st.DataObject, most: int) -> bytes:
    """Return a text with up to so many places drawn in which up to two bytes are others."""
    for _ in range(data.draw(st.integers(0, most))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(REPLACED_BY)) + text[at + data.draw(st.integers(0, 2)) :]
    return text


@given(TABLES, st.booleans(), st.data())
def test_a_damaged_answer_is_refused_or_still_means_the_same(
    tables: Tables, bundles: bool, data: st.DataObject
) -> None:
    text = damaged(orjson.dumps(document(tables)), data, 3)
    rows = by_the_loop(text, tables, bundles=bundles)
    if rows is not None:
        parsed = orjson.loads(text)
        assert rows == by_a_parser(parsed["Responses"], tables, bundles=bundles)
        assert not parsed.get("UnprocessedKeys")


ASKED: Tables = {"t": [{"k": "a"}]}


def test_an_answer_that_is_cut_anywhere_is_refused() -> None:
    # Of a longer buffer, so that reading on would find what lacks.
    whole = memoryview(ONE)
    assert by_the_loop(whole, ASKED) == {"t": {"a": ["AAAA"]}}
    assert [length for length in range(len(ONE)) if by_the_loop(whole[:length], ASKED) is not None] == []


def test_nothing_behind_an_answer_is_read_wherever_it_is_cut() -> None:
    memory = guarded_memory(len(ONE))
    for length in range(len(ONE) + 1):
        answer = memory[len(ONE) - length :]
        answer[:] = ONE[:length]
        assert (by_the_loop(answer, ASKED) is None) == (length < len(ONE))


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
        ONE.replace(b'"AAAA"}', b'"AAAA"},"v":{"B":"AAAA"}'),
        ONE.replace(b"]}", b'],"t":[]}'),
        ONE.replace(b'"UnprocessedKeys":{}', b'"UnprocessedKeys":{"t":{"Keys":[]}}'),
        ONE.replace(b'"UnprocessedKeys":{}', b'"ConsumedCapacity":[]'),
        b"[]",
        b"null",
        b"",
    ],
)
@pytest.mark.parametrize("bundles", [False, True])
def test_anything_else_than_plain_is_refused(text: bytes, bundles: bool) -> None:
    asked = {"t": [{"k": "a", "v": ""}], "u": [{"k": "a"}]}
    assert by_the_loop(ONE, asked, bundles=bundles) is not None
    assert by_the_loop(text, asked, bundles=bundles) is None


@pytest.mark.parametrize("bundles", [False, True])
def test_what_nobody_asked_for_is_left_to_the_parser(bundles: bool) -> None:
    assert by_the_loop(ONE, {"u": [{"k": "a", "v": ""}]}, bundles=bundles) is None
    assert by_the_loop(ONE, {"t": [{"k": "b", "v": ""}]}, bundles=bundles) is None


def test_an_attribute_of_a_bundle_with_a_longer_name_than_there_are_is_refused() -> None:
    for length, is_read in ((255, True), (256, False)):
        name = "v" * length
        answer = ONE.replace(b'"v"', f'"{name}"'.encode())
        rows = by_the_loop(answer, {"t": [{"k": "a", name: ""}]}, bundles=True)
        assert rows == ({"t": {"a": ["AAAA"]}} if is_read else None)


def test_a_row_of_another_length_is_not_written_to() -> None:
    row: list[str | None] = []
    assert not native.fill_rows(ONE, [({"t": 0}, None, {"a": row})])
    assert not native.fill_rows(ONE, [({"t": 7}, None, {"a": [None]})])
    assert not native.fill_rows(ONE, [({"t": -1}, None, {"a": [None]})])
    assert row == []


@pytest.mark.parametrize(
    "groups", [(), [()], [({}, None)], [([], None, {})], [({}, 1, {})], [({}, None, [])], [{}]]
)
def test_groups_of_another_form_are_an_error(groups: Any) -> None:
    with pytest.raises(TypeError, match="fill_rows: expected"):
        native.fill_rows(ONE, groups)


def test_a_place_that_is_no_number_is_an_error() -> None:
    with pytest.raises(TypeError):
        native.fill_rows(ONE, [({"t": "x"}, None, {"a": [None]})])


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
    assert by_the_loop(text, ASKED) == {"t": {"a": [None]}}


@pytest.mark.parametrize("bundles", [False, True])
def test_more_names_and_keys_than_are_kept_are_read(bundles: bool) -> None:
    tables = {
        f"table_{number}": [
            {"k": f"{key}", "v": f"{number}{key}==", f"name_{number}": "AA=="} for key in range(40)
        ]
        for number in range(600)
    }
    answer = orjson.dumps(document(tables))
    expected = by_a_parser(document(tables)["Responses"], tables, bundles=bundles)
    for _ in range(2):
        assert by_the_loop(answer, tables, bundles=bundles) == expected


@pytest.mark.parametrize("attributes", [(), ("v", "w", "x")])
def test_rows_are_filled_in_alike_with_and_without_it(
    monkeypatch: pytest.MonkeyPatch, attributes: tuple[str, ...]
) -> None:
    tables = ("one",) if attributes else ("one", "two")
    left_out = {"k": "c", "v": base64.b64encode(NO_ROW).decode()}
    items = {
        "one": [{"k": "b", "v": "AAAA"}, {"k": "a", "w": "BBBB"}, left_out],
        "two": [{"v": "CCCC", "k": "a"}],
    }
    answer = orjson.dumps(document({table: items[table] for table in tables}))

    def rows() -> list[list[Any]]:
        group = ReadGroup(0, tables, attributes=attributes)
        reads = [KeyRead(group, key, 0.0) for key in "abc"]
        assert BatchGetCodec().fill(answer, reads) == {}
        return [list(read.rows) for read in reads]

    with monkeypatch.context() as patched:
        patched.setattr(batch_get, "_fill_any", None)  # an answer as plain as this never gets there
        by_loop = rows()
    assert by_loop[2][0] == left_out["v"]
    monkeypatch.setattr(batch_get, "fill_rows", never)
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
            patched.setattr(batch_get, "fill_rows", loop)
            try:
                unprocessed = BatchGetCodec().fill(answer, reads)
            except StoreError as error:
                return StoreError, error.message
        return unprocessed, [list(read.rows) for read in reads]

    assert rows(native.fill_rows) == rows(never)
