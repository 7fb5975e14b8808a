"""Which encoding of an answer an Accept header asks for: JSON, or MessagePack where it is named.

RFC 9110 section 12.5.1, as far as there is a choice of two: JSON unless MessagePack is named with a weight
above 0 and JSON isn't named with a higher one. Wildcards ask for nothing in particular, which is JSON. A
header that names neither is answered with JSON, too: section 12.4.1 allows it, and 406 would help nobody.

Invariants
1. It is a pure function of the header's value and never fails: what isn't understood is passed over.
"""

from __future__ import annotations

MSGPACK = b"application/msgpack"
# The type that is registered with IANA, and what was used before it was.
_NAMES = frozenset({MSGPACK, b"application/vnd.msgpack", b"application/x-msgpack"})
_JSON = b"application/json"


def asks_for_msgpack(accept: bytes | None) -> bool:
    """Whether a header's value asks for MessagePack."""
    if accept is None or b"msgpack" not in accept.lower():
        return False
    msgpack = json = 0.0
    for entry in accept.lower().split(b","):
        name, *parameters = [part.strip() for part in entry.split(b";")]
        if name in _NAMES:
            msgpack = max(msgpack, _weight(parameters))
        elif name == _JSON:
            json = max(json, _weight(parameters))
    return msgpack > 0 and msgpack >= json


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
