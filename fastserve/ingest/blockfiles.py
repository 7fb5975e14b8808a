"""Blocks of a scanned table in temporary files, cut by entity key until each file fits into memory.

A scan gives blocks in no order; rows need all blocks of an entity at once. So blocks are appended to one of
`FAN_OUT` files by their entity key's hash, and a file that came out too large is cut again by the next bits.

Invariants
1. All blocks of an entity key come to one file.
2. What waits in memory is at most `BUFFER_BYTES`, and what `groups` gives at once at most `GROUP_BYTES`,
   unless one entity key alone has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from fastserve.errors import InvariantError

FAN_OUT_BITS = 5
FAN_OUT = 1 << FAN_OUT_BITS
MAX_LEVELS = 64 // FAN_OUT_BITS
BUFFER_BYTES = 16 << 20
GROUP_BYTES = 32 << 20
_LENGTHS = 8

Entry = tuple[str, int, bytes]
"""An entity key's text, a block's number, the block."""


class BlockFiles:
    """The blocks of a table, being taken in; `groups` gives them back by entity key."""

    def __init__(self, folder: Path, level: int = 0) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._level = level
        self._waiting: list[list[bytes]] = [[] for _ in range(FAN_OUT)]
        self._waiting_bytes = 0
        self.bytes = [0] * FAN_OUT

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in some blocks."""
        for key, number, block in entries:
            text = key.encode()
            lengths = len(text).to_bytes(4, "little") + len(block).to_bytes(4, "little")
            record = b"".join((lengths, number.to_bytes(_LENGTHS, "little", signed=True), text, block))
            place = _hash(text) >> (self._level * FAN_OUT_BITS) & (FAN_OUT - 1)
            self._waiting[place].append(record)
            self._waiting_bytes += len(record)
            self.bytes[place] += len(record)
            if self._waiting_bytes > BUFFER_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for place, records in enumerate(self._waiting):
            if records:
                with self._path(place).open("ab") as file:
                    file.writelines(records)
        self._waiting = [[] for _ in range(FAN_OUT)]
        self._waiting_bytes = 0

    def groups(self) -> Iterator[dict[str, dict[int, bytes]]]:
        """Yield blocks by entity key and number, every entity key once; the files go as they are read."""
        self.flush()
        for place, size in enumerate(self.bytes):
            path = self._path(place)
            if not size:
                continue
            if size <= GROUP_BYTES or self._level + 1 >= MAX_LEVELS:
                yield _grouped(_entries(path))
                path.unlink()
            else:
                yield from self._cut_again(path)

    def _cut_again(self, path: Path) -> Iterator[dict[str, dict[int, bytes]]]:
        finer = BlockFiles(path.with_suffix(""), self._level + 1)
        finer.add(_entries(path))
        path.unlink()
        yield from finer.groups()

    def _path(self, place: int) -> Path:
        return self._folder / f"{place}.blocks"


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


def _grouped(entries: Iterable[Entry]) -> dict[str, dict[int, bytes]]:
    groups: dict[str, dict[int, bytes]] = {}
    for key, number, block in entries:
        groups.setdefault(key, {})[number] = block
    return groups


def _entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        while head := file.read(8 + _LENGTHS):
            key_length = int.from_bytes(head[:4], "little")
            length = int.from_bytes(head[4:8], "little")
            body = file.read(key_length + length)
            if len(body) != key_length + length:
                raise InvariantError(f"{path.name}: expected {key_length + length} bytes, got {len(body)}")
            yield (
                body[:key_length].decode(),
                int.from_bytes(head[8:], "little", signed=True),
                body[key_length:],
            )
