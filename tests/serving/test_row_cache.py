"""Rows are kept as long as their view says and as far as the memory goes."""

from __future__ import annotations

import pytest

from fastserve.plan.reads import CachePolicy, ReadGroup
from fastserve.serving.row_cache import ENTRY_BYTES, ROW_BYTES, RowCache

GROUP = ReadGroup(0, ("a", "b"), cache=CachePolicy(ttl_ns=10, stale_ns=100))
BRIEF = ReadGroup(1, ("c",), cache=CachePolicy(ttl_ns=10))


@pytest.fixture
def cache() -> RowCache:
    return RowCache(1_000_000)


def test_a_row_is_fresh_until_its_ttl_after_it_was_asked_for(cache: RowCache) -> None:
    rows = ["row", None]
    cache.put(GROUP, "u", rows, asked_ns=1000)
    assert cache.fresh(GROUP, "u", 1010) is rows
    assert cache.fresh(GROUP, "u", 1011) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_a_row_is_the_last_known_until_its_stale_ttl(cache: RowCache) -> None:
    cache.put(GROUP, "u", ["row", None], asked_ns=1000)
    assert cache.last_known(GROUP, "u", 1100) == ["row", None]
    assert cache.last_known(GROUP, "u", 1101) is None


def test_without_a_stale_ttl_the_ttl_bounds_both(cache: RowCache) -> None:
    cache.put(BRIEF, "u", ["row"], asked_ns=1000)
    assert cache.last_known(BRIEF, "u", 1010) == ["row"]
    assert cache.last_known(BRIEF, "u", 1011) is None


def test_groups_and_keys_are_told_apart(cache: RowCache) -> None:
    cache.put(GROUP, "u", ["row", None], 0)
    assert cache.fresh(BRIEF, "u", 0) is None
    assert cache.fresh(GROUP, "v", 0) is None


def test_a_late_answer_does_not_replace_a_newer_one(cache: RowCache) -> None:
    cache.put(BRIEF, "u", ["new"], asked_ns=5)
    cache.put(BRIEF, "u", ["old"], asked_ns=4)
    assert cache.fresh(BRIEF, "u", 5) == ["new"]


def test_rows_are_used_no_longer_than_they_are_trusted(cache: RowCache) -> None:
    cache.put(GROUP, "u", [None, None], asked_ns=1000, trusted_ns=4)
    assert cache.fresh(GROUP, "u", 1004) == cache.last_known(GROUP, "u", 1004) == [None, None]
    assert cache.fresh(GROUP, "u", 1005) is cache.last_known(GROUP, "u", 1005) is None


def test_rows_that_are_not_trusted_are_not_kept_and_nor_is_what_they_replace(cache: RowCache) -> None:
    cache.put(GROUP, "u", ["row", None], asked_ns=1000)
    cache.put(GROUP, "u", [None, None], asked_ns=1001, trusted_ns=-1)
    assert cache.last_known(GROUP, "u", 1001) is None
    assert cache.bytes == 0


def test_those_used_least_lately_go_first() -> None:
    size = ENTRY_BYTES + 1 + ROW_BYTES + 100
    cache = RowCache(3 * size)
    for key in "abc":
        cache.put(BRIEF, key, ["x" * 100], 0)
    assert cache.fresh(BRIEF, "a", 0)
    cache.put(BRIEF, "d", ["x" * 100], 0)
    assert [bool(cache.fresh(BRIEF, key, 0)) for key in "abcd"] == [True, False, True, True]
    assert cache.bytes == 3 * size


def test_memory_is_bounded_whatever_is_put_in() -> None:
    cache = RowCache(20_000)
    for number in range(1000):
        row: object = {"k": {"S": "x" * (number % 50)}} if number % 3 else "x" * (number % 700)
        cache.put(BRIEF, f"key-{number % 170}", [row], number)
        assert cache.bytes <= 20_000
    assert sum(entry[2] for entry in cache._entries.values()) == cache.bytes


def test_a_row_that_is_larger_than_all_is_not_kept_and_nor_is_what_it_replaces() -> None:
    cache = RowCache(1000)
    cache.put(BRIEF, "u", ["old"], 0)
    cache.put(BRIEF, "u", ["x" * 2000], 1)
    assert cache.fresh(BRIEF, "u", 1) is None
    assert cache.bytes == 0
