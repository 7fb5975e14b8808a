"""The signer, stage by stage against botocore's, on generated input; and its fast way against its stages."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire import sigv4
from fastserve.wire.sigv4 import Credentials, RequestSigner, Scope

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
SECONDS = st.integers(min_value=0, max_value=4_102_444_800)
HOSTS = st.sampled_from(
    ["dynamodb.eu-west-1.amazonaws.com", "127.0.0.1:8000", "123456789012.ddb.us-east-1.amazonaws.com"]
)
REGIONS = st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1"])
OPERATIONS = st.sampled_from(["BatchGetItem", "BatchWriteItem"])
BODIES = st.binary(max_size=3000)
CREDENTIALS = st.builds(Credentials, PRINTABLE, st.text(min_size=1, max_size=60), st.none() | PRINTABLE)


def botocore_stages(
    host: str, region: str, operation: str, credentials: Credentials, second: int, body: bytes
) -> tuple[str, str, str]:
    """Give canonical request, string to sign and signature as botocore makes them."""
    auth: Any = SigV4Auth(
        BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token),
        "dynamodb",
        region,
    )
    headers = {
        "Content-Type": sigv4.CONTENT_TYPE,
        "X-Amz-Target": sigv4.TARGET_PREFIX + operation,
        "X-Amz-Date": Scope(second, region).amz_date,
    }
    if credentials.token is not None:
        headers["X-Amz-Security-Token"] = credentials.token
    request: Any = AWSRequest("POST", f"https://{host}/", headers=headers, data=body)
    request.context["timestamp"] = headers["X-Amz-Date"]
    canonical = auth.canonical_request(request)
    to_sign = auth.string_to_sign(request, canonical)
    return canonical, to_sign, auth.signature(to_sign, request)


@given(HOSTS, REGIONS, OPERATIONS, CREDENTIALS, SECONDS, BODIES)
def test_every_stage_equals_botocores(
    host: str, region: str, operation: str, credentials: Credentials, second: int, body: bytes
) -> None:
    expected = botocore_stages(host, region, operation, credentials, second, body)
    scope = Scope(second, region)
    headers = sigv4.signed_headers(host, sigv4.TARGET_PREFIX + operation, scope.amz_date, credentials.token)
    canonical = sigv4.canonical_request(headers, body)
    assert canonical == expected[0]
    to_sign = sigv4.string_to_sign(scope, canonical)
    assert to_sign == expected[1]
    assert sigv4.signature(sigv4.signing_key(credentials.secret_key, scope), to_sign) == expected[2]


def slow_head(
    host: str, region: str, operation: str, credentials: Credentials, second: int, body: bytes
) -> bytes:
    """Build a request's head from the stages."""
    scope = Scope(second, region)
    headers = sigv4.signed_headers(host, sigv4.TARGET_PREFIX + operation, scope.amz_date, credentials.token)
    to_sign = sigv4.string_to_sign(scope, sigv4.canonical_request(headers, body))
    signed = sigv4.signature(sigv4.signing_key(credentials.secret_key, scope), to_sign)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    authorization = (
        f"authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope.text}, "
        f"SignedHeaders={';'.join(headers)}, Signature={signed}\r\n"
    )
    return f"POST / HTTP/1.1\r\n{lines}{authorization}Content-Length: {len(body)}\r\n\r\n".encode()


@given(
    HOSTS,
    REGIONS,
    OPERATIONS,
    st.lists(st.tuples(CREDENTIALS, SECONDS, BODIES), min_size=1, max_size=6),
    st.data(),
)
def test_one_signers_heads_equal_the_stages_whatever_it_signed_before(
    host: str,
    region: str,
    operation: str,
    pool: list[tuple[Credentials, int, bytes]],
    data: st.DataObject,
) -> None:
    signer = RequestSigner(host, region, operation)
    for _ in range(8):
        credentials = data.draw(st.sampled_from(pool))[0]
        second = data.draw(st.sampled_from(pool))[1]
        body = data.draw(st.sampled_from(pool))[2]
        assert signer.head(credentials, second, body) == slow_head(
            host, region, operation, credentials, second, body
        )


def test_the_published_example_of_a_signing_key_comes_out() -> None:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-examples.html
    scope = Scope(1_329_264_000, "us-east-1", "iam")
    assert scope.text == "20120215/us-east-1/iam/aws4_request"
    assert (
        sigv4.signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", scope).hex()
        == "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
    )


def test_credentials_do_not_print_their_secrets() -> None:
    assert repr(Credentials("AKID", "hush", "token")) == "Credentials(access_key='AKID')"


@pytest.mark.parametrize(
    "access_key, token, name",
    [("", None, "access key"), ("A\r\nx: y", None, "access key"), ("A", "t\n", "session token")],
)
def test_credentials_that_would_break_a_head_are_refused(
    access_key: str, token: str | None, name: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Credentials(access_key, "secret", token)
    assert str(caught.value) == f"expected a printable {name} without spaces, got something else"


def test_the_offset_is_how_far_the_services_clock_is_ahead() -> None:
    assert sigv4.clock_offset_s(b"Thu, 01 Jan 1970 00:10:00 GMT", 500.0) == 100.0
    assert sigv4.clock_offset_s(b"yesterday", 500.0) is None
    assert sigv4.clock_offset_s(b"\xff", 500.0) is None
