"""A fixture that runs the stand-in DynamoDB as a process of its own, for tests that need the store's wire.

It must not know what is tested. Import `stand_in` into a conftest or a test module to use it.

Invariants:
1. Every test has a stand-in without tables, faults and latency, and it ends with the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perf.load.standin_client import StandInAddress, running

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StandInAddress", "stand_in"]


@pytest.fixture
def stand_in() -> Iterator[StandInAddress]:
    """Give a fresh stand-in: `.endpoint`, `.store_url()`, `.control(faults=…)`, `.counters()`."""
    with running() as address:
        yield address
