"""`FeatureService`: the features that one model reads.

Invariants:
1. ``references`` have different names, so that ``<view>.<feature>`` names one feature of the service.
2. References that share a request key agree on its type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fastserve.sdk.checks import FREE_NAME, FREE_NAME_EXPECTED, Checks, Definition
from fastserve.sdk.reference import FeatureViewReference
from fastserve.sdk.types import Field
from fastserve.sdk.views import FeatureView


class FeatureService(Definition):
    """A list of views, or of parts of them, under one name.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    references: tuple[FeatureViewReference, ...]
    join_keys: tuple[Field, ...]

    def __init__(
        self,
        name: str,
        features: Sequence[FeatureView | FeatureViewReference],
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("FeatureService", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        given: tuple[FeatureView | FeatureViewReference, ...] = checks.instances(
            "features", features, _SELECTABLE, "FeatureView, whole or selected from"
        )
        self.references = tuple(_reference(item) for item in given)
        _check_unique_references(checks, self.references)
        self.join_keys = _join_keys(checks, self.references)
        self._register(checks, parts_valid=all(reference.valid for reference in self.references))


_SELECTABLE: Final = (FeatureView, FeatureViewReference)


def _reference(item: FeatureView | FeatureViewReference) -> FeatureViewReference:
    return FeatureViewReference(item) if isinstance(item, FeatureView) else item


def _check_unique_references(checks: Checks, references: Sequence[FeatureViewReference]) -> None:
    seen: set[str] = set()
    for reference in references:
        if reference.name in seen:
            checks.fault(
                f"features: the view name {reference.name!r} stands there twice "
                '(expected different names; with_name("…") gives one of them another)'
            )
        seen.add(reference.name)


def _join_keys(checks: Checks, references: Sequence[FeatureViewReference]) -> tuple[Field, ...]:
    """Return the request's join keys in the order in which they first appear."""
    keys: dict[str, tuple[Field, FeatureViewReference]] = {}
    for reference in references:
        if not reference.valid:
            continue
        for key in reference.request_keys:
            first, by = keys.setdefault(key.name, (key, reference))
            if first.dtype != key.dtype:
                checks.wrong(
                    f"join key {key.name!r} of view {reference.name!r}",
                    f"{first.dtype!r} as in view {by.name!r}, or another name by with_join_key_map",
                    key.dtype,
                )
    return tuple(field for field, _ in keys.values())
