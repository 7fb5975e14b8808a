"""Entity ids, against those that Feast computed for each version of its keys."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from fastserve.wire.feast_key import FeastKeyForm, entity_id_of, int_limits
from fastserve.wire.murmur3 import murmur3_128
from tests.support.feast_golden import golden


def test_the_hash_is_that_of_mmh3_for_every_length() -> None:
    hashes = golden("keys.json")["hashes"]

    assert [murmur3_128(bytes(range(length))).hex() for length in range(len(hashes))] == hashes


@pytest.mark.parametrize("number", range(len(golden("keys.json")["keys"])))
def test_the_id_of_a_key_is_the_one_that_feast_computes(number: int) -> None:
    recorded = golden("keys.json")["keys"][number]
    names = tuple(recorded["key"])
    types = tuple(kind for kind, _ in recorded["key"].values())
    values: list[Any] = [b64decode(v) if kind == "BYTES" else v for kind, v in recorded["key"].values()]

    assert recorded["ids"]
    for version, expected in recorded["ids"].items():
        assert entity_id_of(FeastKeyForm(names, types, int(version)))(values) == expected


def test_an_id_does_not_depend_on_the_order_of_join_keys() -> None:
    forwards = FeastKeyForm(("a", "b"), ("STRING", "INT64"))
    backwards = FeastKeyForm(("b", "a"), ("INT64", "STRING"))

    assert entity_id_of(forwards)(["x", 1]) == entity_id_of(backwards)([1, "x"])


def test_integers_have_the_limits_of_what_feast_writes() -> None:
    assert int_limits("INT32", 3) == (-(2**31), 2**31)
    assert int_limits("INT64", 1) == (-(2**31), 2**31)
    assert int_limits("INT64", 2) == (-(2**63), 2**63)
