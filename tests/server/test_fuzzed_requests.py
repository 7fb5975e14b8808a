"""Requests that were damaged in every way: each is answered in order or refused, and nothing breaks.

The whole way from bytes to answer, without a socket, one worker for all: by hypothesis, which finds the
smallest request that breaks something, and by `tests.support.fuzzing`, which makes a million in minutes. For
longer: `FUZZ_EXAMPLES=100000 pytest tests/server/test_fuzzed_requests.py`, `python -m tests.support.fuzzing`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.application_world import ApplicationWorld
from tests.support.fuzzing import TOKENS, ask_in_process, fuzz_in_process, fuzz_over_sockets, seeds

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))


@cache
def worker() -> ApplicationWorld:
    return ApplicationWorld()


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def _loop_is_closed() -> Iterator[None]:
    yield
    loop().close()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a few requests in a row, and bytes of them replaced, taken away, doubled, moved."""
    raw = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds()), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        size = draw(st.integers(0, 40))
        match draw(st.integers(0, 4)):
            case 0:
                raw[at:at] = draw(st.sampled_from(TOKENS))
            case 1:
                raw[at : at + size] = b""
            case 2:
                raw[at:at] = raw[at : at + size] * draw(st.integers(1, 30))
            case 3:
                raw[at : at + size] = draw(st.binary(max_size=12))
            case _:
                raw[at:at] = raw[draw(st.integers(0, len(raw))) :][: size * 4]
    return bytes(raw)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged(), st.integers(1, 400))
def test_damaged_requests_are_answered_or_refused_and_never_break_anything(raw: bytes, size: int) -> None:
    world = worker()
    segments = [raw[at : at + size] for at in range(0, len(raw), size)]
    loop().run_until_complete(ask_in_process(world, segments, is_well_formed=False))
    assert world.application.admission.limit == 10_000
    assert world.ask("GET", "/healthz").status == 200


def test_thousands_with_damaged_bytes_or_json_are_answered_or_refused() -> None:
    tally = fuzz_in_process(2_000, seed=7)
    assert tally.requests == 2_000
    assert {200, 400, 404, 405, 501, 505} <= set(tally.statuses)


def test_a_server_survives_hundreds_over_its_sockets() -> None:
    tally = fuzz_over_sockets(800, seed=7)
    assert tally.requests == 800
    assert {200, 400, 404} <= set(tally.statuses)
