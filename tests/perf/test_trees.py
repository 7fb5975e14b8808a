from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from perf.run import FLOOR, RunOptions
from perf.trees import lines, measure, tree

ROOT = Path(__file__).parents[2]


def test_the_same_tree_twice_gives_right_values_and_a_line_each() -> None:
    trees = [tree(str(ROOT)), tree(f"{sys.executable}:{ROOT}")]
    measured = measure(["fs_1x10"], trees, RunOptions(0.3, 0.1, 2, with_bare=False))
    assert [figures["tree"] for figures in measured] == [*[each.label for each in trees], FLOOR]
    for figures in measured:
        assert (figures["errors"], figures["wrong"]) == (0, 0)
        assert len(figures["rounds_cpu_us"]) == 2
    assert all(figures["verified"] for figures in measured[:2])
    head, first, *_ = lines(measured)
    assert head.split()[:3] == ["tree", "CPU", "us"]
    assert first.split()[0] == "fs_1x10"
    assert first.split()[5] == "1.00"


@pytest.mark.parametrize(
    "text, message",
    [
        ("nowhere", "expected a folder with the package fastserve, got 'nowhere'"),
        (f"/no/python:{ROOT}", "expected an interpreter before the colon, got '/no/python'"),
    ],
)
def test_what_is_no_tree_is_said(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        tree(text)
    assert str(caught.value) == message
