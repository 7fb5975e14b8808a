from __future__ import annotations

import random
from pathlib import Path

import pytest

from fastserve.ingest import blockfiles
from fastserve.ingest.blockfiles import BlockFiles


def random_entries(count: int, keys: int) -> list[tuple[str, int, bytes]]:
    chance = random.Random(1)
    return [
        (f"kü{chance.randrange(keys)}", number - 3, chance.randbytes(chance.randrange(200)))
        for number in range(count)
    ]


@pytest.mark.parametrize("buffer_bytes, group_bytes", [(1 << 20, 1 << 20), (500, 2_000), (1, 1)])
def test_every_key_comes_once_with_all_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer_bytes: int, group_bytes: int
) -> None:
    monkeypatch.setattr(blockfiles, "BUFFER_BYTES", buffer_bytes)
    monkeypatch.setattr(blockfiles, "GROUP_BYTES", group_bytes)
    entries = random_entries(500, 40)
    files = BlockFiles(tmp_path / "blocks")
    for low in range(0, 500, 60):
        files.add(entries[low : low + 60])

    groups = list(files.groups())

    keys = [key for group in groups for key in group]
    assert len(keys) == len(set(keys)) == 40
    got = {
        (key, number, block)
        for group in groups
        for key, own in group.items()
        for number, block in own.items()
    }
    assert got == set(entries)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_groups_are_as_small_as_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfiles, "GROUP_BYTES", 3_000)
    files = BlockFiles(tmp_path / "blocks")
    files.add((f"k{number}", 0, bytes(100)) for number in range(2_000))

    sizes = [sum(len(block) for own in group.values() for block in own.values()) for group in files.groups()]

    assert sum(sizes) == 200_000
    assert max(sizes) <= 3_000


def test_one_key_with_too_much_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfiles, "GROUP_BYTES", 100)
    files = BlockFiles(tmp_path / "blocks")
    files.add(("k", number, bytes(100)) for number in range(50))

    (group,) = files.groups()

    assert len(group["k"]) == 50


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    assert list(BlockFiles(tmp_path / "blocks").groups()) == []
