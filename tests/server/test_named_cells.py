"""Cells by name in shared memory: who may write, what readers see, what is kept."""

from __future__ import annotations

import os

from fastserve.server.named_cells import NamedCells


def test_what_processes_write_into_their_rows_is_seen_by_all() -> None:
    cells = NamedCells(3, 2)
    cells.add(["a", "b"])
    cells.row(0)["b"][2] = 5
    child = os.fork()
    if child == 0:
        cells.row(1)["b"][2] = 2**62
        cells.row(1)["a"][0] += 1
        os._exit(0)
    os.waitpid(child, 0)
    numbers = cells.numbers()
    assert numbers["a"].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert numbers["b"].tolist() == [[0, 0, 5], [0, 0, 2**62]]


def test_names_that_come_later_leave_the_others_as_they_are() -> None:
    cells = NamedCells(1, 1)
    cells.add(["a"])
    row = cells.row(0)
    row["a"][0] = 7
    cells.add(["b", "a", "b"])
    assert cells.names == ("a", "b")
    assert cells.row(0)["a"][0] == 7
    row["a"][0] += 1
    assert {name: each.tolist() for name, each in cells.numbers().items()} == {"a": [[8]], "b": [[0]]}


def test_no_names_are_no_cells() -> None:
    cells = NamedCells(4, 2)
    cells.add([])
    assert cells.numbers() == {}
    assert cells.row(1) == {}
