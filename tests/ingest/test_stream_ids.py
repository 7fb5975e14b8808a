"""Ids of requests beside a block."""

from __future__ import annotations

from fastserve.ingest.stream_ids import KEPT_S, MAX_IDS, decode_ids, encode_ids, with_ids

NOW_S = 1_767_225_600


def name(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_ids_come_back_with_their_times() -> None:
    ids = with_ids(with_ids({}, [name(1)], NOW_S), [name(2), name(3)], NOW_S + 5)
    assert decode_ids(encode_ids(ids)) == {name(1): NOW_S, name(2): NOW_S + 5, name(3): NOW_S + 5}
    assert decode_ids(b"") == {}


def test_old_ids_are_dropped_when_new_ones_come() -> None:
    ids = with_ids({}, [name(1)], NOW_S)
    assert name(1) in with_ids(ids, [name(2)], NOW_S + KEPT_S - 1)
    assert name(1) not in with_ids(ids, [name(2)], NOW_S + KEPT_S)


def test_of_too_many_ids_the_oldest_go() -> None:
    ids = with_ids({}, [name(number) for number in range(MAX_IDS)], NOW_S)
    ids = with_ids(ids, [name(MAX_IDS), name(MAX_IDS + 1)], NOW_S + 1)
    assert len(ids) == MAX_IDS
    assert next(iter(ids)) == name(2)
    assert list(ids)[-1] == name(MAX_IDS + 1)
