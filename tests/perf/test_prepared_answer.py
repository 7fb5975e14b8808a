"""Tests of `perf.load.prepared_answer`: the loop in C against `Store.batch_get_item`, which answers all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.load.dynamo_error import DynamoError
from perf.load.operations import Store
from perf.load.prepared_answer import HEAD_ROOM_BYTES, PreparedAnswers
from perf.load.tables import PreparedTable

pytest.importorskip("perf.load._prepared_answer", reason="no C compiler was there")

TABLES: dict[str, list[str | None]] = {"one": ["QUJD", None, "AAAA"], "two": ["BBBB"], "three": [None]}


def slow_and_fast() -> tuple[Store, PreparedAnswers]:
    """Return the same tables behind the slow way and the fast one."""
    store, prepared = Store(), PreparedAnswers()
    for name, rows in TABLES.items():
        table = store.tables[name] = PreparedTable(name, rows)
        prepared.add(name, table.tails)
    return store, prepared


def request_for(tables: dict[str, list[str]], **more: Any) -> bytes:
    entries = {name: {"Keys": [{"k": {"S": key}} for key in keys], **more} for name, keys in tables.items()}
    return orjson.dumps({"RequestItems": entries})


def slow(store: Store, body: bytes) -> bytes | None:
    try:
        return store.perform("BatchGetItem", body)
    except DynamoError:
        return None


def fast(prepared: PreparedAnswers, body: bytes) -> bytes | None:
    answer = prepared.answer(body)
    return None if answer is None else bytes(answer[HEAD_ROOM_BYTES:])


def counts(store: Store, prepared: PreparedAnswers) -> tuple[list[int], list[int]]:
    by_table = [table.keys_read for table in store.tables.values()]
    return (
        [store.keys, store.absent_keys, *by_table],
        [prepared.keys, prepared.absent_keys, *map(prepared.keys_of, TABLES)],
    )


keys = st.lists(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1),
    min_size=1,
    max_size=33,
    unique=True,
)
requests = st.dictionaries(st.sampled_from(list(TABLES)), keys, min_size=1)


@given(requests)
def test_a_plain_request_is_answered_as_by_the_slow_way_and_counted(tables: dict[str, list[str]]) -> None:
    store, prepared = slow_and_fast()
    body = request_for(tables)
    answer = fast(prepared, body)
    if answer is None:  # what JSON escapes
        assert any(letter in key for each in tables.values() for key in each for letter in '\\"')
        return
    assert answer == slow(store, body)
    expected, counted = counts(store, prepared)
    assert counted == expected
    assert prepared.calls == 1


def test_tables_that_are_asked_for_the_same_keys_are_answered_each_with_its_rows() -> None:
    store, prepared = slow_and_fast()
    same = [f"user{number}" for number in range(33)]
    body = request_for({"one": same, "two": same, "three": same}, ConsistentRead=True)
    assert fast(prepared, body) == slow(store, body)
    expected, counted = counts(store, prepared)
    assert counted == expected == [99, counted[1], 33, 33, 33]


@given(st.data())
def test_a_damaged_request_is_answered_as_by_the_slow_way_or_not_at_all(data: st.DataObject) -> None:
    store, prepared = slow_and_fast()
    body = bytearray(
        request_for(data.draw(requests), **data.draw(st.sampled_from([{}, {"ConsistentRead": True}])))
    )
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b'"', b"}", b",", b"a"])
        )
    answer = fast(prepared, bytes(body))
    if answer is None:
        assert counts(store, prepared)[1] == [0] * 5
    else:
        assert answer == slow(store, bytes(body))


@pytest.mark.parametrize(
    "body",
    [
        request_for({"one": ["a"], "other": ["a"]}),
        request_for({"one": []}),
        request_for({"one": [""]}),
        request_for({"one": ["a", "b", "a"]}),
        request_for({"one": ["ü"]}),
        request_for({"one": ["a"]}, ProjectionExpression="k"),
        request_for({"one": [f"u{number}" for number in range(101)]}),
        request_for(
            {"one": [f"u{number}" for number in range(60)], "two": [f"u{number}" for number in range(60)]}
        ),
        request_for({"one": ["a"]}) + b" ",
        request_for({"one": ["a"]})[:-1],
        b'{"RequestItems":{"one":{"Keys":[{"k":{"S":"a"}}]},"one":{"Keys":[{"k":{"S":"b"}}]}}}',
        b'{"RequestItems":{"one":{"Keys":[{"k":{"S":"a\\u0062"}}]}}}',
        b"",
    ],
)
def test_what_is_not_plain_is_left_alone(body: bytes) -> None:
    assert fast(slow_and_fast()[1], body) is None


def test_an_answer_of_more_than_the_service_gives_is_left_alone() -> None:
    prepared = PreparedAnswers()
    prepared.add("large", [b"x" * 400_000])
    assert fast(prepared, request_for({"large": [f"u{number}" for number in range(40)]})) is not None
    assert fast(prepared, request_for({"large": [f"u{number}" for number in range(42)]})) is None
    prepared.add("empty", [])
    assert fast(prepared, request_for({"empty": ["a"]})) is None


def test_a_table_that_was_removed_is_answered_no_more() -> None:
    _, prepared = slow_and_fast()
    prepared.remove("one")
    prepared.remove("unknown")
    assert fast(prepared, request_for({"one": ["a"]})) is None
    assert prepared.keys_of("one") == 0
    assert fast(prepared, request_for({"two": ["a"]})) is not None
    prepared.reset()
    assert (prepared.keys, prepared.calls, prepared.keys_of("two")) == (0, 0, 0)
