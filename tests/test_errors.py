from __future__ import annotations

import time
from typing import Any

import pytest

from fastserve.errors import ECHO_LIMIT, shown


@pytest.mark.parametrize(
    "value, text",
    [
        ("x", "'x'"),
        (b"x", "b'x'"),
        (1.5, "1.5"),
        ((1, "a"), "(1, 'a')"),
        ([1, [2, {"a": None}]], "[1, [2, {'a': None}]]"),
        ({"a": [1, 2], "b": ()}, "{'a': [1, 2], 'b': ()}"),
        ("x" * 62, repr("x" * 62)),
        ("x" * 63, repr("x" * 63)[:63] + "…"),
        ([0] * 21, repr([0] * 21)),
        ([0] * 22, repr([0] * 22)[:63] + "…"),
        ([[], []] * 100, repr([[], []] * 100)[:63] + "…"),
        ({str(key): {} for key in range(50)}, repr({str(key): {} for key in range(50)})[:63] + "…"),
    ],
    ids=str,
)
def test_a_value_is_shown_as_its_repr_up_to_a_limit(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(text) <= ECHO_LIMIT


def test_an_integer_of_more_digits_than_python_writes_is_told_to_be_one() -> None:
    assert shown(10**5000) == "too much to be shown"


def test_what_is_nested_too_deeply_for_repr_is_shown_all_the_same() -> None:
    value: Any = 0
    for _ in range(5_000):
        value = [value]
    assert shown(value) == "[" * 63 + "…"
    for _ in range(5_000):
        value = {"a": value}
    assert shown(value).startswith("{'a': {'a': ")


def test_no_more_of_a_large_value_is_written_than_is_shown() -> None:
    large = [[0] * 1_000_000, {str(key): key for key in range(100_000)}]
    began_s = time.process_time()
    for _ in range(100):
        shown(large)
    assert time.process_time() - began_s < 0.5
