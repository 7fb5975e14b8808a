"""What the fuzzer runs, by name: bytes in, and nothing out but the error that is meant for bad bytes.

Run by `perf.fuzz` in atheris's environment, over the project's packages; not imported by anything else.

Invariants:
1. Any other exception than the one of a target is a finding, and so is an answer that contradicts itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["fastserve"]):
    from fastserve.api.decode import decode_get_features, decode_get_features_batch, decode_metadata
    from fastserve.api.ingest import decode_ingest
    from fastserve.errors import ECHO_LIMIT, RequestError, StoreError
    from fastserve.store.dynamodb.batch_get import BatchGetCodec
    from fastserve.tiles.blocks import block_schema, decode
    from fastserve.tiles.rows import RowError, decode_row, encode_row
    from fastserve.wire.client_http import AnswerParser, WireError
    from tests.support.http_connection import echoing, read_answers  # the server's protocol with it

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from perf.soak.world import workspace_plan

if TYPE_CHECKING:
    from collections.abc import Callable

_MESSAGE_MAX = 400 + ECHO_LIMIT
_PLAN = workspace_plan()
_LAYOUT = _PLAN.views["text0"].layout
_TOTALS = _PLAN.views["totals"].schema
assert _TOTALS is not None
_BLOCKS = block_schema(_TOTALS)
_GROUP = ReadGroup(0, ("t",))


def fuzz_http(data: bytes) -> None:
    """Send bytes to a connection, whole and cut in two: both must be read and answered alike."""
    whole, cut = echoing(), echoing()
    whole.send(data)
    cut.send(data[: len(data) // 2], data[len(data) // 2 :])
    methods = [exchange.method for exchange in whole.exchanges]
    answers = read_answers(whole.received, methods)
    seen = [(each.method, each.path, each.query, each.body) for each in whole.exchanges]
    again = [(each.method, each.path, each.query, each.body) for each in cut.exchanges]
    assert seen == again, (seen, again)
    # What is wrong in two ways is refused for the one that is seen first.
    are_right = [each.status < 400 for each in answers]
    assert are_right == [each.status < 400 for each in read_answers(cut.received, methods)], are_right


def fuzz_api(data: bytes) -> None:
    """Read a body of each kind."""
    readers: tuple[Callable[[bytes], Any], ...] = (
        decode_get_features,
        lambda body: decode_get_features_batch(body, 1_000),
        decode_metadata,
        lambda body: decode_ingest(body, None),
    )
    for read in readers:
        message = ""
        try:
            read(data)
        except RequestError as error:
            message = error.message
        assert len(message) <= _MESSAGE_MAX, message


def fuzz_rows(data: bytes) -> None:
    """Read a packed row; one that can be read is written back to the same values."""
    try:
        values = decode_row(_LAYOUT, data)
    except RowError:
        return
    written = encode_row(_LAYOUT, values, 0)
    assert repr(decode_row(_LAYOUT, written)) == repr(values)


def fuzz_blocks(data: bytes) -> None:
    """Read a block of stream tiles."""
    try:
        decode(_BLOCKS, data)
    except RowError:
        return


def fuzz_answers(data: bytes) -> None:
    """Read an answer of the store's, and its body as that of a BatchGetItem."""
    parser = AnswerParser(1 << 20)
    buffer = bytearray(data)
    try:
        answer = parser.parse(buffer, len(buffer))
    except WireError:
        answer = None
    body = data if answer is None else bytes(answer.body)
    read = KeyRead(_GROUP, "user1", 1.0)
    try:
        BatchGetCodec().fill(body, [read])
    except StoreError:
        return


TARGETS = {
    name.removeprefix("fuzz_"): target for name, target in list(globals().items()) if name.startswith("fuzz_")
}


def main() -> None:
    """Run the target that the first argument names; the others are libFuzzer's."""
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
