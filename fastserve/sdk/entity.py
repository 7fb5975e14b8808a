"""`Entity`: what features are about, and the join keys by which a request names one.

Invariants:
1. A join key's type is one whose values are exact as text, for a row's key in the store is text: no floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fastserve.sdk.checks import FREE_NAME, FREE_NAME_EXPECTED, Checks, Definition
from fastserve.sdk.types import Bool, Field, Int64, String, Timestamp, check_unique_names

JOIN_KEY_TYPES: Final = (String, Int64, Bool, Timestamp)


class Entity(Definition):
    """A thing that features describe, named by one or more join keys.

    Args:
        name: A letter, then letters, digits and ``_ . : -``.
        join_keys: A `Field`, or a list of them; of type String, Int64, Bool or Timestamp.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    join_keys: tuple[Field, ...]

    def __init__(
        self,
        name: str,
        join_keys: Sequence[Field] | Field,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("Entity", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        self.join_keys = checks.instances(
            "join_keys", join_keys, Field, 'Field such as Field("user_id", String)'
        )
        check_unique_names(checks, "join_keys", self.join_keys)
        for field in self.join_keys:
            if field.valid and field.dtype not in JOIN_KEY_TYPES:
                expected = "String, Int64, Bool or Timestamp"
                checks.wrong(f"join key {field.name!r}", expected, field.dtype, field.location)
        self._register(checks, parts_valid=all(field.valid for field in self.join_keys))
