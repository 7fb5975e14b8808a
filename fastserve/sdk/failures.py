"""Says how a file of a feature repo failed: syntax, a failing import, any exception at all.

Takes an exception and gives the `DefinitionError` that an author can act on; collects nothing itself.

Invariants:
1. The place is a line of the repo: the syntax error's, else the innermost of the repo's own lines that ran.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fastserve.errors import DefinitionError, Location
from fastserve.sdk.modules import PREFIX

_OUR_NAMES: Final = re.compile(rf"{PREFIX}[0-9]+\.")
TEXT_CHARS_MAX: Final = 300  # an exception's text may hold a whole data frame


def described_failure(failure: BaseException, folder: Path, file: Path) -> DefinitionError:
    """Return what running ``file`` of the repo in ``folder`` raised, with its place in the repo."""
    place = _place_of(failure, folder) or Location(str(file), 1)
    if isinstance(failure, DefinitionError):
        return DefinitionError(failure.message, failure.location or place)
    if isinstance(failure, SyntaxError):
        return DefinitionError(f"{type(failure).__name__}: {failure.msg}", place)
    text = _OUR_NAMES.sub("", str(failure).partition("\n")[0])
    if len(text) > TEXT_CHARS_MAX:
        text = text[: TEXT_CHARS_MAX - 1] + "…"
    return DefinitionError(f"{type(failure).__name__}: {text}" if text else type(failure).__name__, place)


def _place_of(failure: BaseException, folder: Path) -> Location | None:
    if isinstance(failure, SyntaxError) and Path(failure.filename or "").is_relative_to(folder):
        return Location(str(failure.filename), failure.lineno or 1)
    place = None
    traceback = failure.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(folder):
            place = Location(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place
