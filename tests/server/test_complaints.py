from __future__ import annotations

import logging

import pytest

from fastserve.errors import RequestError
from fastserve.server.complaints import Complaints


def test_a_view_s_complaints_are_told_once_a_second_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 50.0
    complaints = Complaints(lambda: now_s)
    for _ in range(3):
        complaints("a", "Traceback 1")
    complaints("b", "Traceback 2")
    now_s = 51.0
    complaints("a", "Traceback 3")
    assert [record.getMessage() for record in caplog.records] == [
        "on-demand view a failed\nTraceback 1",
        "on-demand view b failed\nTraceback 2",
        "on-demand view a failed (2 more since the last such line)\nTraceback 3",
    ]


def test_an_exception_is_told_with_its_traceback_and_a_refusal_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints(lambda: 0.0)
    error = ValueError("thirteen")
    complaints("a", error)
    complaints("b", RequestError(504, "took too long"))
    first, second = caplog.records
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert (second.levelno, second.exc_info) == (logging.WARNING, None)
    assert second.getMessage() == "on-demand view b: took too long"
