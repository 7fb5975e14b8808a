"""How a view's rows lie in the online store: ``"packed"``, an attribute per feature, or as Feast writes.

Invariants:
1. The names that an `AttributesFormat` gives to keys and timestamp are different ones.
"""

from __future__ import annotations

from typing import Final, Literal

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.feast_format import FeastFormat

ATTRIBUTE_NAME_BYTES_MAX: Final = 255  # DynamoDB's limit for the names of key attributes


class AttributesFormat(Immutable):
    """An ordinary item with an attribute per feature, for tables that exist already.

    Args:
        partition_key: The name of the item's key attribute; by default that of the view's first join key.
        sort_key: That of the second.
        timestamp_attribute: The attribute with the row's effective time, which a ttl needs.

    Raises:
        DefinitionError: a name is empty, too long, or given twice (collected while a repo is being loaded).
    """

    partition_key: str | None
    sort_key: str | None
    timestamp_attribute: str | None
    location: Location
    valid: bool

    def __init__(
        self,
        partition_key: str | None = None,
        sort_key: str | None = None,
        timestamp_attribute: str | None = None,
    ) -> None:
        checks = Checks("AttributesFormat")
        self.partition_key = _attribute_name(checks, "partition_key", partition_key)
        self.sort_key = _attribute_name(checks, "sort_key", sort_key)
        self.timestamp_attribute = _attribute_name(checks, "timestamp_attribute", timestamp_attribute)
        names = self.attribute_names
        if len(set(names)) < len(names):
            checks.wrong("partition_key, sort_key and timestamp_attribute", "different names", names)
        self.location = checks.location
        self.valid = checks.valid
        self._seal()

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names given, in the order of the parameters."""
        names = (self.partition_key, self.sort_key, self.timestamp_attribute)
        return tuple(name for name in names if name is not None)

    def _parts(self) -> tuple[str | None, ...]:
        return (self.partition_key, self.sort_key, self.timestamp_attribute)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttributesFormat) and other._parts() == self._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"AttributesFormat{self._parts()!r}"


RowFormat = Literal["packed"] | AttributesFormat | FeastFormat


def check_row_format(checks: Checks, value: object) -> RowFormat:
    """Return the format given, or ``"packed"`` with a fault."""
    if isinstance(value, (AttributesFormat, FeastFormat)):
        return value
    if value != "packed":
        checks.wrong("row_format", '"packed", an AttributesFormat or a FeastFormat', value)
    return "packed"


def _attribute_name(checks: Checks, what: str, value: object) -> str | None:
    name = checks.optional_text(what, value)
    if name is not None and len(name.encode(errors="replace")) > ATTRIBUTE_NAME_BYTES_MAX:
        checks.wrong(what, f"at most {ATTRIBUTE_NAME_BYTES_MAX} bytes", name)
    return name
