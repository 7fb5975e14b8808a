"""A request's body read: plain, with options, and a batch of 100 rows.

Run as `python -m perf.micro.decode`. Figures are CPU microseconds per body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from fastserve.api.decode import decode_get_features, decode_get_features_batch
from perf.micro.timing import show

ROWS = 100
NAMES: dict[str, Any] = {"workspaceName": "perf", "featureServiceName": "fs_5x100"}
OPTIONS = {"includeNames": True, "includeEffectiveTimes": True, "includeSloInfo": True}


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what is measured, by its name."""
    key = {"joinKeyMap": {"user_id": "user00012345"}}
    plain = orjson.dumps({"params": {**NAMES, **key}})
    full = orjson.dumps({"params": {**NAMES, **key, "metadataOptions": OPTIONS}})
    batch = orjson.dumps({"params": {**NAMES, "requestData": [key] * ROWS}})
    yield "decode: plain", lambda: decode_get_features(plain)
    yield "decode: with options", lambda: decode_get_features(full)
    yield f"decode: {ROWS} rows", lambda: decode_get_features_batch(batch, ROWS)


def main() -> None:
    """Print the figures."""
    for name, case in cases():
        show(name, case)


if __name__ == "__main__":
    main()
