"""The refusals of the stand-in DynamoDB, each with the status, type and text the service gives.

Knows no sockets and no tables.

Invariants:
1. `error_body` is the whole body of an error answer, with `__type` as the service writes it.
"""

from __future__ import annotations

from typing import Any

import orjson

_CORAL = "com.amazon.coral.validate#"
_DYNAMO = "com.amazonaws.dynamodb.v20120810#"
_SERVICE = "com.amazon.coral.service#"


class DynamoError(Exception):
    """One refusal: an HTTP status, a `__type` and a message."""

    def __init__(
        self,
        kind: str,
        message: str,
        status: int = 400,
        field: str = "message",
        item: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.field = field
        self.item = item

    def error_body(self) -> bytes:
        """Give the answer's body."""
        more = {} if self.item is None else {"Item": self.item}
        return orjson.dumps({"__type": self.kind, self.field: self.message, **more})


def validation(message: str) -> DynamoError:
    """Refuse a request that no retry can mend."""
    return DynamoError(_CORAL + "ValidationException", message)


def not_found(message: str) -> DynamoError:
    """Refuse a request about a table that does not exist."""
    return DynamoError(_DYNAMO + "ResourceNotFoundException", message)


def in_use(name: str) -> DynamoError:
    """Refuse to create a table twice."""
    return DynamoError(_DYNAMO + "ResourceInUseException", f"Table already exists: {name}")


def unknown_operation(target: str) -> DynamoError:
    """Refuse an operation the stand-in does not speak."""
    return DynamoError(_SERVICE + "UnknownOperationException", f"Unknown operation: {target[:64]}")


def serialization(message: str) -> DynamoError:
    """Refuse a body that is not the JSON of a request."""
    return DynamoError(_SERVICE + "SerializationException", message, field="Message")


def condition_failed(item: dict[str, Any] | None) -> DynamoError:
    """Refuse a write whose condition doesn't hold; `item` is what is there, if it was asked for."""
    return DynamoError(
        _DYNAMO + "ConditionalCheckFailedException", "The conditional request failed", item=item
    )


def throttled() -> DynamoError:
    """Refuse a request for its rate: retryable."""
    return DynamoError(
        _DYNAMO + "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded.",
    )


def server_fault() -> DynamoError:
    """Fail inside the service: retryable."""
    return DynamoError(_DYNAMO + "InternalServerError", "The request processing has failed.", status=500)
