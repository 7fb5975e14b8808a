"""A packed answer as the JSON that it stands for: for logs, which hold one kind of answer only.

Invariants
1. `answer_document` of what `pack.packed_answer` made dumps to the JSON that `encode` and `metadata` write.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastserve.api.encode_on_demand import json_float
from fastserve.wire.msgpack import unpack


def answer_document(packed: bytes) -> Any:
    """Return what `orjson.dumps` with ``OPT_SERIALIZE_NUMPY`` writes as the API's JSON.

    Raises:
        InvariantError: it isn't MessagePack as we write it.
    """
    document = unpack(packed)
    result = document["result"]
    for vector in result if isinstance(result, list) else (result,):
        vector["features"] = [_in_json(value) for value in vector["features"]]
    return document


def _in_json(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | np.floating):
        return json_float(value)
    if isinstance(value, list):
        return [_in_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _in_json(member) for key, member in value.items()}
    return value
