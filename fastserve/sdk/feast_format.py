"""`FeastFormat`: the rows that Feast's DynamoDB online store writes, read where they lie.

Invariants:
1. A valid format says all of an item that its view doesn't: the view's name with Feast, the version of the
   keys, and what Feast calls or types otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.types import DataType, Int64, String, Timestamp

FEAST_KEY_VERSIONS: Final = (1, 2, 3)
FEAST_KEY_TYPES: Final[Mapping[DataType, tuple[str, ...]]] = MappingProxyType(
    {String: ("STRING", "BYTES"), Int64: ("INT64", "INT32"), Timestamp: ("UNIX_TIMESTAMP",)}
)
"""What Feast may call the type of a join key of ours; the first is what it is taken for."""


class FeastFormat(Immutable):
    """Items of Feast's DynamoDB online store; `fastserve import-feast` writes this.

    The view's ``table`` names the table.

    Args:
        view: The view's name with Feast, where it is another.
        key_version: The ``entity_key_serialization_version`` of Feast's configuration.
        key_types: The Feast types of join keys that aren't STRING, INT64 or UNIX_TIMESTAMP: INT32, or BYTES
            (base64 in requests).
        names: From names of features to Feast's, where they differ.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    view: str | None
    key_version: int
    key_types: Mapping[str, str]
    names: Mapping[str, str]
    location: Location
    valid: bool

    def __init__(
        self,
        view: str | None = None,
        key_version: int = 3,
        key_types: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        checks = Checks("FeastFormat", view)
        self.view = checks.optional_text("view", view)
        self.key_version = 3
        if type(key_version) is int and key_version in FEAST_KEY_VERSIONS:
            self.key_version = key_version
        else:
            checks.wrong("key_version", "1, 2 or 3", key_version)
        self.key_types = _texts(checks, "key_types", key_types)
        known = [name for names_of in FEAST_KEY_TYPES.values() for name in names_of]
        for join_key, kind in self.key_types.items():
            checks.choice(f"key_types[{join_key!r}]", kind, known)
        self.names = _texts(checks, "names", names)
        self.location = checks.location
        self.valid = checks.valid
        self._seal()

    def key_type(self, join_key: str, dtype: DataType) -> str:
        """Return what Feast calls the type of a join key."""
        return self.key_types.get(join_key) or FEAST_KEY_TYPES[dtype][0]

    def name(self, feature: str) -> str:
        """Return what Feast calls a feature."""
        return self.names.get(feature, feature)

    def _parts(self) -> tuple[object, ...]:
        return (self.view, self.key_version, dict(self.key_types), dict(self.names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeastFormat) and other._parts() == self._parts()

    def __hash__(self) -> int:
        return hash((self.view, self.key_version))

    def __repr__(self) -> str:
        return f"FeastFormat{self._parts()!r}"


def _texts(checks: Checks, what: str, value: object) -> Mapping[str, str]:
    if value is None:
        return MappingProxyType({})
    if isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(text, str) and text for name, text in value.items()
    ):
        return MappingProxyType(dict(value))
    checks.wrong(what, "a dict of str to str", value)
    return MappingProxyType({})
