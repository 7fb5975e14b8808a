"""The check of a request's signature: Signature Version 4 as the service verifies it, from the secret anew.

Knows no sockets and no tables. Written apart from the signer of fastserve, with nothing cached, so that the
two can't be wrong together in the same way.
Format: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

Invariants:
1. The body and every header that is signed are those that came: a byte that differs is refused.
2. `host`, `x-amz-target` and a date are signed, and the date is within five minutes of the clock.
"""

from __future__ import annotations

import calendar
import hmac
import re
import time
from hashlib import sha256

from perf.load.dynamo_error import DynamoError

_CORAL = "com.amazon.coral.service#"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/dynamodb/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_MUST_BE_SIGNED = {"host", "x-amz-target", "x-amz-date"}
_CLOCK_SKEW_MAX_S = 300


class SignatureCheck:
    """Checks requests against one access key."""

    def __init__(self, key_id: str, secret: str) -> None:
        self._key_id = key_id
        self._secret = secret

    def check(self, head: bytes, body: bytes, now_s: float) -> None:
        """Pass a request that is signed as it should be.

        Raises:
            DynamoError: it isn't, with the service's type.
        """
        request_line, headers = _parse(head)
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if found is None:
            raise _refused("MissingAuthenticationTokenException", "Request is missing Authentication Token")
        key_id, day, region, names, signature = found.groups()
        signed = names.split(";")
        moment = headers.get("x-amz-date", "")
        if signed != sorted(signed) or not set(signed) >= _MUST_BE_SIGNED or not moment.startswith(day):
            raise _refused("IncompleteSignatureException", "Authorization header lacks a part")
        if key_id != self._key_id:
            raise _refused("UnrecognizedClientException", "The security token is invalid.")
        if abs(_seconds(moment) - now_s) > _CLOCK_SKEW_MAX_S:
            raise _refused("InvalidSignatureException", "Signature expired")
        scope = f"{day}/{region}/dynamodb/aws4_request"
        canonical = _canonical(request_line, headers, signed, body)
        if not hmac.compare_digest(self._sign(moment, scope, canonical), signature):
            raise _refused("InvalidSignatureException", "The request signature we calculated does not match")

    def _sign(self, moment: str, scope: str, canonical: str) -> str:
        key = f"AWS4{self._secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        digest = sha256(canonical.encode()).hexdigest()
        return hmac.digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return request_line, {name.lower(): " ".join(value.split()) for name, _, value in pairs}


def _canonical(request_line: str, headers: dict[str, str], signed: list[str], body: bytes) -> str:
    method, target, _ = request_line.split(" ")
    lines = "".join(f"{name}:{headers.get(name, '')}\n" for name in signed)
    return f"{method}\n{target}\n\n{lines}\n{';'.join(signed)}\n{sha256(body).hexdigest()}"


def _seconds(moment: str) -> int:
    try:
        return calendar.timegm(time.strptime(moment, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise _refused("IncompleteSignatureException", "X-Amz-Date is no date") from None


def _refused(kind: str, message: str) -> DynamoError:
    return DynamoError(_CORAL + kind, message)
