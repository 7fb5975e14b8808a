from __future__ import annotations

import io
import sys

import pytest

from fastserve.ingest.progress import Bar, Silent, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_on_a_terminal_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = make_progress(wanted=True)
    assert isinstance(bar, Bar)
    bar.step("spend: reading", "rows")
    bar.advance(5)
    bar.step("spend: writing", "partitions", 8)
    bar.close()
    bar.advance(1)
    bar.close()
    assert "spend: reading" in terminal.getvalue()
    assert "spend: writing" in terminal.getvalue()
    assert not terminal.getvalue().rstrip(" \r").endswith("partitions")


def test_nothing_is_shown_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    for bar in (make_progress(wanted=True), make_progress(wanted=False)):
        assert isinstance(bar, Silent)
        bar.step("a", "rows")
        bar.advance(1)
        bar.close()
    assert plain.getvalue() == ""
