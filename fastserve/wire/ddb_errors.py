"""What an error answer of DynamoDB means: its kind decides who acts on it and how.

Pure: a status and a body in, a `Failure` out.  Unknown types are judged by their status alone, so a new error
of the service's is retried when it is a 5xx and shown to the caller when it is a 4xx.

Sources: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html and, for the
signature's errors, the common errors of the API reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from fastserve.errors import StoreError, shown

# DynamoDB's own sentences, not a caller's input; still, a proxy's page of HTML has no place in a message.
MAX_TEXT_CHARACTERS = 300


class Kind(Enum):
    """What to do about a failure."""

    TRANSIENT = "transient"  # the same call may succeed a moment later
    THROTTLED = "throttled"  # the same, but slower
    CLOCK = "clock"  # sign again with the service's clock
    CREDENTIALS = "credentials"  # fetch credentials, then sign again
    TABLE = "table"  # a table isn't there, has another key, or isn't ours to use
    REFUSED = "refused"  # something in the call is wrong, perhaps one key of many
    OPEN = "open"  # it wasn't sent: the store has stopped answering
    PERMANENT = "permanent"  # no part of this call will ever succeed


RETRYABLE = frozenset({Kind.TRANSIENT, Kind.THROTTLED, Kind.CLOCK, Kind.CREDENTIALS, Kind.OPEN})
# A ValidationException about the table that was asked, not about the value of a key.
KEY_SCHEMA_TEXT = "does not match the schema"

CONDITION_FAILED = "ConditionalCheckFailedException"
KINDS = {
    "ProvisionedThroughputExceededException": Kind.THROTTLED,
    "ThrottlingException": Kind.THROTTLED,
    "RequestLimitExceeded": Kind.THROTTLED,
    "LimitExceededException": Kind.THROTTLED,
    "TransactionInProgressException": Kind.TRANSIENT,
    "InternalServerError": Kind.TRANSIENT,
    "InternalFailure": Kind.TRANSIENT,
    "ServiceUnavailable": Kind.TRANSIENT,
    "ServiceUnavailableException": Kind.TRANSIENT,
    "RequestTimeTooSkewed": Kind.CLOCK,
    "RequestExpired": Kind.CLOCK,
    "InvalidSignatureException": Kind.CLOCK,
    "ExpiredTokenException": Kind.CREDENTIALS,
    "ExpiredToken": Kind.CREDENTIALS,
    "UnrecognizedClientException": Kind.CREDENTIALS,
    "InvalidClientTokenId": Kind.CREDENTIALS,
    "ResourceNotFoundException": Kind.TABLE,
    "ValidationException": Kind.REFUSED,
    "AccessDeniedException": Kind.TABLE,
    CONDITION_FAILED: Kind.REFUSED,
    "ItemCollectionSizeLimitExceededException": Kind.REFUSED,
}

# The name of a failure that is nothing but time gone by without an answer.
TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try, as the store or the connection described it.

    ``item`` is what a failed condition was about, in DynamoDB's JSON, where the call asked for it.
    """

    kind: Kind
    name: str
    text: str = ""
    status: int = 0
    reasons: tuple[str, ...] = ()
    item: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind in RETRYABLE

    def error(self, what: str) -> StoreError:
        """Return the error that ends ``what`` (a few words such as `read from DynamoDB`)."""
        details = ": ".join(part for part in (self.name, self.text) if part)
        reasons = f" ({', '.join(self.reasons)})" if self.reasons else ""
        return StoreError(
            f"{what}: {details}{reasons}",
            retryable=self.retryable,
            throttled=self.kind is Kind.THROTTLED,
            timed_out=self.name == TIMEOUT,
        )


def classify(status: int, body: bytes | memoryview) -> Failure:
    """Return what an answer with a status other than 200 means."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        return Failure(_kind_of_status(status), f"HTTP {status}", f"body {shown(bytes(body))}", status)
    name = str(document.get("__type", "")).rpartition("#")[2] or f"HTTP {status}"
    text = str(document.get("message", document.get("Message", "")))
    kind = KINDS.get(name) or _kind_of_status(status)
    if kind is Kind.REFUSED and KEY_SCHEMA_TEXT in text:
        kind = Kind.TABLE
    item = document.get("Item") if name == CONDITION_FAILED else None
    return Failure(kind, name, text[:MAX_TEXT_CHARACTERS], status, _reasons(document), item)


def _kind_of_status(status: int) -> Kind:
    if status >= 500 or status == 408:
        return Kind.TRANSIENT
    return Kind.THROTTLED if status == 429 else Kind.PERMANENT


def _reasons(document: dict[str, object]) -> tuple[str, ...]:
    """Read `ThrottlingReasons`: which limit of which table or key range asked for less."""
    entries = document.get("ThrottlingReasons", document.get("throttlingReasons"))
    if not isinstance(entries, list):
        return ()
    reasons = [entry.get("reason") for entry in entries[:8] if isinstance(entry, dict)]
    return tuple(str(reason)[:80] for reason in reasons if reason is not None)
