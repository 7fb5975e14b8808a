"""The file of API keys, watched: a key that was added or revoked counts within seconds, without a restart.

Invariants
1. A file that can't be read or understood changes nothing: the keys of before stay, and the log says why,
   once per version of the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from fastserve.api.api_keys import ApiKey, KeyRing, parse_keys
from fastserve.errors import DefinitionError

LOGGER = logging.getLogger("fastserve")
WATCH_EVERY_S = 1.0


def read_keys(path: str | Path) -> KeyRing:
    """Return the keys of a file.

    Raises:
        DefinitionError: it can't be read, or isn't a file of keys.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise DefinitionError(
            f"api_keys: expected a file of keys, got {error.strerror or error}; "
            "`fastserve keys create` makes one"
        ) from None
    return KeyRing(parse_keys(text, "api_keys"))


class KeyFile:
    """The keys of a running server, as its file has them now.

    Raises:
        DefinitionError: the file can't be read or understood at the start.
    """

    def __init__(self, path: str, wall_ns: Callable[[], int]) -> None:
        self._path = path
        self._wall_ns = wall_ns
        self._version = _version(path)
        self._ring = read_keys(path)

    def admit(self, authorization: bytes | None, scope: str, workspace: str) -> ApiKey:
        """Return the key that an Authorization header shows; raises as `KeyRing.admit`."""
        return self._ring.admit(authorization, scope, workspace, self._wall_ns())

    def watch(self) -> None:
        """Take over the file if it has changed."""
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._ring = read_keys(self._path)
        except DefinitionError as error:
            LOGGER.error("the API keys stay as they were: %s", error.message)  # noqa: TRY400 - no traceback
        else:
            LOGGER.info("read %d API keys", len(self._ring.keys))


def _version(path: str) -> tuple[int, int, int] | None:
    """Return what changes with the file: a new one, and one that was written to."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a mounted secret is a link that changes its target
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
