"""A job's folder for temporary files, which goes with the job, or with the next one if the job was killed.

Who owns a folder holds a lock on the file `LOCK` in it, which the system lets go with the process, however
that ends. So a folder whose lock can be had belongs to nobody. A process id would say less: another process
may have got it since, or have it in another container that shares the place.

Invariants
1. Only folders are removed that this module made, of this user, and that no living process owns.
2. A folder has its name only from when it is locked: nobody sees an unlocked one that is just being made.
3. Nothing here fails a job but that there is no room for a folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastserve.errors import DefinitionError, shown

PREFIX = "fastserve-"
MAKING = ".fastserve-"
LOCK = "lock"


@contextmanager
def scratch_folder(parent: str | Path | None = None) -> Iterator[Path]:
    """Give a new folder in ``parent``, None being the system's for temporary files; remove those left behind.

    Raises:
        DefinitionError: no folder can be made there.
    """
    try:
        place = Path(tempfile.gettempdir() if parent is None else parent)
        _sweep(place)
        made = Path(tempfile.mkdtemp(prefix=MAKING, dir=place))
    except OSError as error:
        where = "TMPDIR" if parent is None else shown(str(parent))
        raise DefinitionError(
            f"temporary files: expected a folder to write in ({where}), got: {error.strerror or error}"
        ) from None
    folder = place / (PREFIX + made.name.removeprefix(MAKING))
    try:
        with (made / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder)
            yield folder
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it goes away meanwhile, or isn't ours
            if folder.stat().st_uid == os.getuid():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    with (folder / LOCK).open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
