"""The wire to the store without a kernel: a request's signed head, and an answer found in a buffer.

Run as `python -m perf.micro.client_wire`. Figures are CPU microseconds per call; `perf.micro.dynamodb_client`
has the whole client, with sockets and beside the SDK.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import orjson

from fastserve.wire.client_http import AnswerParser
from fastserve.wire.sigv4 import Credentials, RequestSigner
from perf.micro.timing import show

TABLE = "view"
CREDENTIALS = Credentials("AKIDEXAMPLE", "secret")
SECOND = 1_768_046_400
ROW = "A" * 1_088


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what is measured, by its name."""
    signer = RequestSigner("dynamodb.eu-west-1.amazonaws.com", "eu-west-1", "BatchGetItem")
    body = b"x" * 3_000
    yield "sign: 3,000 bytes", lambda: signer.head(CREDENTIALS, SECOND, body)
    for count in (1, 100):
        buffer = bytearray(answer_for([f"user{number}" for number in range(count)], ROW))
        yield f"parse: answer of {count} keys", _parse(buffer)


def answer_for(keys: Sequence[str], row: str) -> bytes:
    body = orjson.dumps(
        {
            "Responses": {TABLE: [{"k": {"S": key}, "v": {"B": row}} for key in keys]},
            "UnprocessedKeys": {},
        }
    )
    head = (
        "HTTP/1.1 200 OK\r\nServer: Server\r\nDate: Tue, 11 Mar 2025 10:00:00 GMT\r\n"
        f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\nx-amzn-RequestId: 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEFAAAA\r\n"
        f"x-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
    )
    return head.encode() + body


def _parse(buffer: bytearray) -> Callable[[], object]:
    parser = AnswerParser()

    def parse() -> None:
        parser.reset()
        if parser.parse(buffer, len(buffer)) is None:
            raise AssertionError

    return parse


def main() -> None:
    """Print the figures."""
    for name, case in cases():
        show(name, case)


if __name__ == "__main__":
    main()
