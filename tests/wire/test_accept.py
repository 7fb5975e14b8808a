from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.accept import asks_for_msgpack


@pytest.mark.parametrize(
    "accept",
    [
        b"application/msgpack",
        b"application/vnd.msgpack",
        b"application/x-msgpack",
        b"Application/MsgPack",
        b"application/json;q=0.5, application/msgpack",
        b"application/json,application/msgpack",
        b"application/msgpack;q=0.1, */*",
        b"application/msgpack ; charset=binary ; q=0.9,application/json;q=0.8",
        b"text/html,application/x-msgpack;q=0.2,application/vnd.msgpack;q=0",
    ],
)
def test_msgpack_is_asked_for_where_it_is_named_and_json_is_not_preferred(accept: bytes) -> None:
    assert asks_for_msgpack(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        b"",
        b"*/*",
        b"application/*",
        b"application/json",
        b"text/html",
        b"application/msgpack;q=0",
        b"application/msgpack;q=x",
        b"application/msgpack;q=0.5,application/json",
        b"application/msgpackish",
        b"text/plain;of=application/msgpack",
    ],
)
def test_all_else_is_json(accept: bytes | None) -> None:
    assert not asks_for_msgpack(accept)


@given(st.lists(st.sampled_from([b"application/msgpack", b";", b"q", b"=", b",", b"0.5", b" ", b"\xff"])))
def test_no_header_makes_it_fail(parts: list[bytes]) -> None:
    assert asks_for_msgpack(b"".join(parts)) in {True, False}
