"""Evaluators without the inner loops in C, as where there is no compiler: what both ways are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fastserve.tiles import head_merge, merge_loop


@contextmanager
def no_loops() -> Iterator[None]:
    """Let NumPy do all in whatever is made meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_merge, "_native", None)
        patch.setattr(merge_loop, "_native", None)
        yield
