"""AWS Signature Version 4 for the one kind of request we send: a POST of JSON to DynamoDB.

Bytes in, bytes out: no clock, no socket, no look-up of credentials.  The stages (`canonical_request`,
`string_to_sign`, `signing_key`, `signature`) are written out as the specification has them and are what tests
hold against botocore; `RequestSigner` gives the same bytes with everything hashed ahead that can be.

1. `RequestSigner.head` equals the head built from the four stages, for every body, second and credentials.
2. Nothing that came from a caller's request enters a head; the credentials are checked when they are made.
3. A signer keeps no secret longer than the credentials it was last given.

Format: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256

CONTENT_TYPE = "application/x-amz-json-1.0"
TARGET_PREFIX = "DynamoDB_20120810."
ALGORITHM = "AWS4-HMAC-SHA256"
SHA256_BLOCK_BYTES = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """One consistent set of credentials; a refresh gives a new object, never a changed one."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, text in (("access key", self.access_key), ("session token", self.token or "-")):
            if not text or not all("!" <= character <= "~" for character in text):
                raise ValueError(f"expected a printable {name} without spaces, got something else")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is valid for: the request's instant (epoch seconds), region and service."""

    second: int
    region: str
    service: str = "dynamodb"

    @property
    def amz_date(self) -> str:
        """The instant as `X-Amz-Date` writes it."""
        return datetime.fromtimestamp(self.second, UTC).strftime("%Y%m%dT%H%M%SZ")

    @property
    def text(self) -> str:
        """The credential scope, `YYYYMMDD/region/service/aws4_request`."""
        return f"{self.amz_date[:8]}/{self.region}/{self.service}/aws4_request"


def signed_headers(host: str, target: str, amz_date: str, token: str | None) -> dict[str, str]:
    """Return the headers that are signed, in the order of their lower-case names."""
    headers = {"content-type": CONTENT_TYPE, "host": host, "x-amz-date": amz_date}
    if token is not None:
        headers["x-amz-security-token"] = token
    headers["x-amz-target"] = target
    return headers


def canonical_request(headers: dict[str, str], body: bytes) -> str:
    """Return the canonical request of a POST to `/` with these sorted headers."""
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return f"POST\n/\n\n{lines}\n{';'.join(headers)}\n{sha256(body).hexdigest()}"


def string_to_sign(scope: Scope, canonical: str) -> str:
    """Return the string to sign for a canonical request."""
    return f"{ALGORITHM}\n{scope.amz_date}\n{scope.text}\n{sha256(canonical.encode()).hexdigest()}"


def signing_key(secret_key: str, scope: Scope) -> bytes:
    """Derive the key that signs a day's requests to one service in one region."""
    key = ("AWS4" + secret_key).encode()
    for part in scope.text.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(key: bytes, to_sign: str) -> str:
    """Return the signature, 64 hexadecimal digits."""
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


class RequestSigner:
    """Makes the complete heads of one operation's requests to one host.

    A head costs one hash of the body, three copies of hash states taken once a second (or when the
    credentials change) and about 150 more bytes of hashing: HMAC's inner and outer states are kept with the
    key already in them, and the canonical request's with all of its text but the body's hash.  `hmac.digest`
    alone costs twice as much as both states' copies (`perf/micro/dynamodb_client.py`).
    """

    __slots__ = (
        "_canonical",
        "_credentials",
        "_head",
        "_host",
        "_inner",
        "_key",
        "_key_for",
        "_outer",
        "_region",
        "_second",
        "_target",
    )

    def __init__(self, host: str, region: str, operation: str) -> None:
        self._host = host
        self._region = region
        self._target = TARGET_PREFIX + operation
        self._second = -1
        self._credentials: Credentials | None = None
        self._key = b""
        self._key_for: tuple[Credentials, str] | None = None
        self._head = b""
        self._canonical = self._inner = self._outer = sha256()

    def head(self, credentials: Credentials, second: int, body: bytes) -> bytes:
        """Return the head, up to and with its empty line, of a signed request that carries ``body``.

        ``second`` is the epoch time by the service's clock, in whole seconds.
        """
        if second != self._second or credentials is not self._credentials:
            self._prepare(credentials, second)
        canonical = self._canonical.copy()
        canonical.update(sha256(body).hexdigest().encode())
        inner = self._inner.copy()
        inner.update(canonical.hexdigest().encode())
        outer = self._outer.copy()
        outer.update(inner.digest())
        return b"%b%b\r\nContent-Length: %d\r\n\r\n" % (self._head, outer.hexdigest().encode(), len(body))

    def _prepare(self, credentials: Credentials, second: int) -> None:
        scope = Scope(second, self._region)
        headers = signed_headers(self._host, self._target, scope.amz_date, credentials.token)
        key = self._signing_key(credentials, scope).ljust(SHA256_BLOCK_BYTES, b"\0")
        # The canonical request of an empty body ends with that body's hash: the rest is common to all bodies.
        common = canonical_request(headers, b"")[: -2 * sha256().digest_size]
        self._canonical = sha256(common.encode())
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._inner.update(f"{ALGORITHM}\n{scope.amz_date}\n{scope.text}\n".encode())
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f"POST / HTTP/1.1\r\n{lines}authorization: {ALGORITHM} "
            f"Credential={credentials.access_key}/{scope.text}, "
            f"SignedHeaders={';'.join(headers)}, Signature="
        ).encode()
        self._second = second
        self._credentials = credentials

    def _signing_key(self, credentials: Credentials, scope: Scope) -> bytes:
        if self._key_for != (credentials, scope.text):
            self._key = signing_key(credentials.secret_key, scope)
            self._key_for = (credentials, scope.text)
        return self._key


def clock_offset_s(date_header: bytes, now_s: float) -> float | None:
    """Return how far the service's clock is ahead of ours, or None when the `Date` header can't be read."""
    try:
        return parsedate_to_datetime(date_header.decode("ascii")).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
