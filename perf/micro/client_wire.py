"""The wire to the store without a kernel: a request's signed head, and an answer found in a buffer.

Run as `python -m perf.micro.client_wire`. Figures are CPU microseconds per call; `perf.micro.dynamodb_client`
has the whole client, with sockets and beside the SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastserve.wire.client_http import AnswerParser
from fastserve.wire.sigv4 import Credentials, RequestSigner
from perf.micro.dynamodb_client import answer_for
from perf.micro.timing import show

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
