"""Every documented error has its kind; an unknown one is judged by its status."""

from __future__ import annotations

import pytest

from fastserve.wire.ddb_errors import Failure, Kind, classify

PREFIX = "com.amazonaws.dynamodb.v20120810#"


@pytest.mark.parametrize(
    "name, kind",
    [
        ("ProvisionedThroughputExceededException", Kind.THROTTLED),
        ("ThrottlingException", Kind.THROTTLED),
        ("RequestLimitExceeded", Kind.THROTTLED),
        ("LimitExceededException", Kind.THROTTLED),
        ("TransactionInProgressException", Kind.TRANSIENT),
        ("RequestTimeTooSkewed", Kind.CLOCK),
        ("InvalidSignatureException", Kind.CLOCK),
        ("ExpiredTokenException", Kind.CREDENTIALS),
        ("UnrecognizedClientException", Kind.CREDENTIALS),
        ("ResourceNotFoundException", Kind.TABLE),
        ("ValidationException", Kind.REFUSED),
        ("AccessDeniedException", Kind.TABLE),
        ("SerializationException", Kind.PERMANENT),
        ("SomethingNew", Kind.PERMANENT),
    ],
)
def test_the_type_of_a_400_decides_its_kind(name: str, kind: Kind) -> None:
    failure = classify(400, f'{{"__type":"{PREFIX}{name}","message":"why"}}'.encode())
    assert failure == Failure(kind, name, "why", 400)


@pytest.mark.parametrize(
    "status, kind",
    [
        (500, Kind.TRANSIENT),
        (502, Kind.TRANSIENT),
        (503, Kind.TRANSIENT),
        (504, Kind.TRANSIENT),
        (408, Kind.TRANSIENT),
        (429, Kind.THROTTLED),
        (400, Kind.PERMANENT),
        (413, Kind.PERMANENT),
        (301, Kind.PERMANENT),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"[]", b"{}", b'{"__type":"x#Unheard"}'])
def test_without_a_known_type_the_status_decides(status: int, kind: Kind, body: bytes) -> None:
    assert classify(status, body).kind is kind


def test_the_error_names_what_failed_why_and_which_limit() -> None:
    body = (
        b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","Message":"slow down",'
        b'"ThrottlingReasons":[{"reason":"TableReadKeyRangeThroughputExceeded","resource":"arn:x"},7]}'
    )
    error = classify(400, memoryview(body)).error("read from DynamoDB")
    assert str(error) == (
        "read from DynamoDB: ThrottlingException: slow down (TableReadKeyRangeThroughputExceeded)"
    )
    assert error.retryable
    assert error.throttled


def test_a_page_of_html_is_cut_short_in_the_message() -> None:
    error = classify(503, b"<html>" + b"x" * 100_000).error("read from DynamoDB")
    assert error.retryable
    assert not error.throttled
    assert len(str(error)) < 130


def test_a_message_of_the_services_is_kept_to_a_length() -> None:
    failure = classify(400, b'{"__type":"ValidationException","message":"' + b"m" * 5000 + b'"}')
    assert len(failure.text) == 300
    assert not failure.error("x").retryable


@pytest.mark.parametrize("reasons", [b"7", b"null", b"{}", b"[null]", b'[{"resource":1}]'])
def test_odd_throttling_reasons_are_left_out(reasons: bytes) -> None:
    assert classify(400, b'{"__type":"a#b","ThrottlingReasons":%b}' % reasons).reasons == ()


def test_a_key_of_another_form_than_the_tables_is_the_tables_fault() -> None:
    message = b"The provided key element does not match the schema"
    body = b'{"__type":"x#ValidationException","message":"%b"}' % message
    assert classify(400, body).kind is Kind.TABLE
