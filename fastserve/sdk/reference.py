"""`FeatureViewReference`: a view as one service reads it: its name there, the features, the key map.

Authors get one from ``view[["a"]]``, ``view.with_name("n")`` and ``view.with_join_key_map({…})``, which chain
in any order; each gives a new reference.

Invariants:
1. ``features`` are features of the view, each once, in the order selected.
2. ``join_key_map`` has every join key of the view once, in its order, and gives each a different request key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.types import Field

if TYPE_CHECKING:
    from fastserve.sdk.views import FeatureView


class FeatureViewReference(Immutable):
    """A view under a name, with the features selected and the request's names of its join keys.

    Raises:
        DefinitionError: an unknown feature or join key, or a name that can't be one (collected while a repo
        is being loaded).
    """

    view: FeatureView
    name: str
    features: tuple[str, ...]
    join_key_map: Mapping[str, str]
    location: Location
    valid: bool

    def __init__(
        self,
        view: FeatureView,
        name: str | None = None,
        features: list[str] | tuple[str, ...] | None = None,
        join_key_map: Mapping[str, str] | None = None,
    ) -> None:
        self._make(Checks("view", view.name), view, name, features, join_key_map)

    def _make(
        self, checks: Checks, view: FeatureView, name: object, features: object, join_key_map: object
    ) -> None:
        self.view = view
        self.name = view.name if name is None else checks.identifier("with_name", name)
        self.features = view.feature_names
        if features is not None and view.valid:
            self.features = _checked_selection(checks, features, view.feature_names)
        keys = {field.name: field.name for field in view.join_keys}
        if join_key_map is not None and view.valid:
            keys = _checked_key_map(checks, join_key_map, keys)
        self.join_key_map = MappingProxyType(keys)
        self.location = checks.location
        self.valid = checks.valid and view.valid
        self._seal()

    def __getitem__(self, features: list[str] | tuple[str, ...]) -> FeatureViewReference:
        """Return a reference that has only these of the features."""
        checks = Checks("view", self.name)
        kept = _checked_selection(checks, features, self.features) if self.valid else self.features
        return FeatureViewReference(self.view, self.name, kept, self.join_key_map)

    def with_name(self, name: str) -> FeatureViewReference:
        """Return a reference whose features are named ``<name>.<feature>``."""
        return FeatureViewReference(self.view, name, self.features, self.join_key_map)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> FeatureViewReference:
        """Return a reference for which requests name the view's join keys (left) otherwise (right).

        Keys that aren't named keep the name they had.
        """
        checks = Checks("view", self.name)
        keys = (
            _checked_key_map(checks, join_key_map, dict(self.join_key_map))
            if self.valid
            else self.join_key_map
        )
        return FeatureViewReference(self.view, self.name, self.features, keys)

    @property
    def request_keys(self) -> tuple[Field, ...]:
        """The join keys as requests name them, in the order of the view's own."""
        return tuple(Field(self.join_key_map[key.name], key.dtype) for key in self.view.join_keys)

    def __repr__(self) -> str:
        return f"{self.view!r}.with_name({self.name!r})"


def _checked_selection(checks: Checks, features: object, known: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(features, (list, tuple)) or not features:
        checks.wrong("selection", 'a list of feature names, as in view[["a", "b"]]', features)
        return known
    kept: dict[str, None] = {}
    for feature in features:
        if feature not in known:
            checks.wrong("selected feature", f"one of {', '.join(known)}", feature)
        elif feature in kept:
            checks.wrong("selected feature", "each feature once", feature)
        kept[feature] = None
    return tuple(feature for feature in kept if feature in known)


def _checked_key_map(checks: Checks, changes: object, keys: dict[str, str]) -> dict[str, str]:
    if not isinstance(changes, Mapping) or not changes:
        checks.wrong("join key map", 'a dict such as {"user_id": "user_a"}', changes)
        return keys
    mapped = dict(keys)
    for key, request_key in changes.items():
        if key not in keys:
            checks.wrong("join key map", f"join keys of the view: {', '.join(keys)}", key)
            continue
        mapped[key] = checks.identifier(f"join key map of {key!r}", request_key)
    if len(set(mapped.values())) < len(mapped):
        checks.wrong("join key map", "a different request key for each join key", mapped)
        return keys
    return mapped
