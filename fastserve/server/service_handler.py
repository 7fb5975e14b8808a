"""One service as the application sees it: join keys and context checked, its encoders, what never varies.

Invariants
1. Every fault of a caller's is a `RequestError` that names the key or field, and in a batch the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fastserve.api.context import ContextReader, said_instead
from fastserve.api.decode import FeaturesRequest
from fastserve.api.encode_on_demand import VectorEncoder
from fastserve.api.metadata import MetadataEncoder, service_metadata
from fastserve.api.pack import VectorPacker
from fastserve.api.values import key_text
from fastserve.errors import RequestError, shown
from fastserve.plan.service import MAX_STORE_BYTES, ServicePlan
from fastserve.server.exchange import Meter
from fastserve.serving.coalescer import KeyRead
from fastserve.serving.requests import ServiceRuntime
from fastserve.serving.transport import BASE64_ROWS, RowTransport


class ServiceHandler:
    """What answers requests for one service: checks, encoders, static texts."""

    __slots__ = (
        "_bytes_per_unit",
        "_has_items",
        "context",
        "encode",
        "has_on_demand",
        "key_count",
        "keys",
        "may_be_cached",
        "may_be_large",
        "metadata",
        "metadata_answer",
        "meter",
        "pack",
        "plan",
        "runtime",
        "takes_context",
    )

    def __init__(self, runtime: ServiceRuntime, transport: RowTransport) -> None:
        plan: ServicePlan = runtime.plan
        self.plan = plan
        self.runtime = runtime
        self.meter: Meter | None = None  # told of each answer, where somebody measures
        self.keys = [(field.name, key_text(field)) for field in plan.join_keys]
        self.key_count = len(self.keys)
        self.context = ContextReader(plan.context_fields)
        self.may_be_cached = any(read.group.cache is not None for read in plan.reads)
        self.has_on_demand = bool(plan.on_demand)
        self.takes_context = bool(plan.context_fields)
        self.encode = VectorEncoder(plan).encode
        self.pack = VectorPacker(plan).pack
        self.metadata = MetadataEncoder(plan)
        self.metadata_answer = service_metadata(plan)
        # Without variable-width columns and blocks every row has its static length, and most services can't
        # come near the limit.
        self.may_be_large = (
            plan.row_bytes > MAX_STORE_BYTES
            or bool(plan.streams)
            or any(place.view.layout.variable_columns or not place.view.packed for place in plan.places)
        )
        self._bytes_per_unit = transport.bytes_per_unit
        self._has_items = any(not place.view.packed for place in plan.places)

    def key_texts(self, join_keys: Mapping[str, Any], row: str = "") -> list[str]:
        """Check one row's join keys and return their key texts.

        Raises:
            RequestError: one is missing, unknown or of the wrong type.
        """
        try:
            texts = [text(join_keys[name]) for name, text in self.keys]
        except KeyError as error:
            instead = said_instead(join_keys, [name for name, _ in self.keys])
            message = f"Missing required join key: `{error.args[0]}`{row}{instead}"
            raise RequestError(400, message) from None
        except RequestError as error:
            raise RequestError(error.status, f"{error.message}{row}") from None
        if len(join_keys) != self.key_count:
            known = [name for name, _ in self.keys]
            extra = next(name for name in join_keys if name not in known)
            expected = ", ".join([f"`{name}`" for name in known]) or "none"
            raise RequestError(400, f"Unknown join key{row}: expected {expected}, got {shown(extra)}")
        return texts

    def context_values(
        self, context: Mapping[str, Any], request: FeaturesRequest, row: str = ""
    ) -> Sequence[Any]:
        """Check one row's request context and return its values, in the order of the plan's fields.

        Raises:
            RequestError: a field is missing, unknown or of the wrong type.
        """
        if not context and not self.takes_context:
            return ()
        return self.context.values(context, row, ignore_extra=request.options.ignore_extra_context)

    def is_surely_small(self, reads: Sequence[KeyRead]) -> bool:
        """Whether the rows of one vector are within the limit, as their lengths alone tell."""
        if self._has_items:
            return False
        units = 0
        for read in reads:
            for row in read.rows:
                if row is not None:
                    units += len(row)
        return units * self._bytes_per_unit <= MAX_STORE_BYTES

    def store_bytes(self, rows: Sequence[Any]) -> int:
        """Return how many bytes the rows of one vector take in the store; of an item, those of its JSON."""
        size = 0.0
        for row in rows:
            if isinstance(row, dict):
                size += len(orjson.dumps(row))
            elif row is not None:  # text in any case is base64, also beside another store's bytes
                size += len(row) * (BASE64_ROWS.bytes_per_unit if type(row) is str else self._bytes_per_unit)
        return int(size)
