"""An export's files: compressed lines in files of a bounded size, one after the other.

Knows lines, and nothing of what stands in them.

Invariants
1. A line lies in one file, and files have about `FILE_BYTES` of text; a single line may have more.
2. What an export that didn't come to its end has left behind is removed before the first line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isal import igzip

FILE_BYTES = 256 << 20
"""Plain text per file: the guide advises numerous middling files, of which an import takes 50,000 (12 TB)."""
COMPRESSION_LEVEL = 1

_open_gzip: Any = igzip.open  # it has no types


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file: its place under the view's folder, its items, its bytes as text and as they lie there."""

    path: str
    items: int
    text_bytes: int
    bytes: int


class ExportFiles:
    """Files of a bounded size, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: list[ExportedFile] = []
        self._open: Any = None
        self._path = folder
        self._items = self._text_bytes = 0

    def begin(self) -> None:
        """Make the folder; remove the files of an export that didn't come to its end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if re.fullmatch(r"\d{5}\.json\.gz", path.name):
                path.unlink()

    def add(self, lines: Sequence[bytes]) -> None:
        """Write lines."""
        waiting: list[bytes] = []
        for line in lines:
            if self._items and self._text_bytes + len(line) > FILE_BYTES:
                self._write(waiting)
                self._end()
                waiting = []
            waiting.append(line)
            self._items += 1
            self._text_bytes += len(line)
        self._write(waiting)

    def _write(self, lines: Sequence[bytes]) -> None:
        if self._open is None:
            self._path = self._folder / f"{len(self._done):05}.json.gz"
            self._open = _open_gzip(self._path, "wb", compresslevel=COMPRESSION_LEVEL)
        self._open.write(b"".join(lines))

    def close(self) -> list[ExportedFile]:
        """End the last file; return them all."""
        self._end()
        return self._done

    def _end(self) -> None:
        if self._open is None:
            return
        self._open.close()
        self._open = None
        name = f"{self._folder.name}/{self._path.name}"
        size = self._path.stat().st_size
        self._done.append(ExportedFile(name, self._items, self._text_bytes, size))
        self._items = self._text_bytes = 0
