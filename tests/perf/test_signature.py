from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from fastserve.wire.sigv4 import Credentials, RequestSigner
from perf.load.dynamo_error import DynamoError
from perf.load.signature import SignatureCheck
from perf.load.standin_client import StandInAddress, running

NOW_S = 1_768_046_400
BODY = b'{"RequestItems":{}}'


def signed_head(secret: str = "secret", now_s: int = NOW_S, body: bytes = BODY) -> bytes:
    signer = RequestSigner("127.0.0.1:8000", "local", "BatchGetItem")
    return bytes(signer.head(Credentials("key", secret), now_s, body)).partition(b"\r\n\r\n")[0]


def kind_of(head: bytes, body: bytes = BODY, now_s: float = NOW_S) -> str:
    with pytest.raises(DynamoError) as caught:
        SignatureCheck("key", "secret").check(head, body, now_s)
    return caught.value.kind.rpartition("#")[2]


def test_what_the_hot_path_signs_is_passed() -> None:
    SignatureCheck("key", "secret").check(signed_head(), BODY, NOW_S + 1.5)


@pytest.mark.parametrize(
    "head, body, now_s, kind",
    [
        (signed_head(), BODY + b" ", NOW_S, "InvalidSignatureException"),
        (signed_head("other"), BODY, NOW_S, "InvalidSignatureException"),
        (signed_head(), BODY, NOW_S + 301, "InvalidSignatureException"),
        (signed_head().replace(b"=key/", b"=kez/"), BODY, NOW_S, "UnrecognizedClientException"),
        (signed_head().replace(b"BatchGetItem", b"PutItem"), BODY, NOW_S, "InvalidSignatureException"),
        (signed_head().replace(b"host;", b""), BODY, NOW_S, "IncompleteSignatureException"),
        (b"POST / HTTP/1.1\r\nHost: x", BODY, NOW_S, "MissingAuthenticationTokenException"),
    ],
)
def test_what_is_not_signed_as_it_should_be_is_refused(
    head: bytes, body: bytes, now_s: float, kind: str
) -> None:
    assert kind_of(head, body, now_s) == kind


async def read_by_sdk(address: StandInAddress, secret: str) -> Any:
    session: Any = AioSession()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": secret, "region_name": "local"}
    trusted: Any = {"endpoint_url": address.tls_endpoint, "verify": address.ca_bundle}
    async with session.create_client("dynamodb", **keys, **trusted) as client:
        return await client.batch_get_item(RequestItems={"t": {"Keys": [{"k": {"S": "user1"}}]}})


def test_the_stand_in_checks_what_the_sdk_signs_and_speaks_tls() -> None:
    with running(["--check-signature", "key:secret"], tls=True) as address:
        address.prepare("t", ["QUJD"])

        answer = asyncio.run(read_by_sdk(address, "secret"))
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            asyncio.run(read_by_sdk(address, "another"))

    assert answer["Responses"]["t"][0]["v"] == {"B": b"ABC"}
