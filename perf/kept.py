"""Results as files: JSON of one value a line, so that two of them can be compared line by line.

Knows nothing of what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def keep_result(document: Mapping[str, Any], path: Path) -> None:
    """Write a result; its folder is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
