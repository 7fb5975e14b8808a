"""A view as one service or on-demand view reads it: its name there, the features, the key map.

Authors get a `FeatureViewReference` from ``view[["a"]]``, ``view.with_name("n")`` and
``view.with_join_key_map({…})``, which chain in any order; each gives a new reference. On-demand views give an
`OnDemandReference`, without a key map: their sources have theirs.

Invariants:
1. ``features`` are features of the view, each once, in the order selected.
2. ``join_key_map`` has every join key of the view once, in its order, and gives each a different request key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.types import Field

if TYPE_CHECKING:
    from fastserve.sdk.on_demand import OnDemandFeatureView
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

    def __init__(self, view: FeatureView) -> None:
        location = Checks("view", view.name).location
        keys = {key.name: key.name for key in view.join_keys}
        self._fill(view, view.name, view.feature_names, keys, location, valid=view.valid)

    def _fill(  # what `__init__` and `_changed` share
        self,
        view: FeatureView,
        name: str,
        features: tuple[str, ...],
        join_key_map: Mapping[str, str],
        location: Location,
        *,
        valid: bool,
    ) -> None:
        self.view = view
        self.name = name
        self.features = features
        self.join_key_map = MappingProxyType(dict(join_key_map))
        self.location = location
        self.valid = valid
        self._seal()

    def _changed(
        self,
        checks: Checks,
        name: str | None = None,
        features: tuple[str, ...] | None = None,
        join_key_map: Mapping[str, str] | None = None,
    ) -> FeatureViewReference:
        changed = object.__new__(FeatureViewReference)
        changed._fill(
            self.view,
            self.name if name is None else name,
            self.features if features is None else features,
            self.join_key_map if join_key_map is None else join_key_map,
            checks.location,
            valid=self.valid and checks.valid,
        )
        return changed

    def __getitem__(self, features: list[str] | tuple[str, ...]) -> FeatureViewReference:
        """Return a reference that has only these of the features."""
        checks = Checks("view", self.name)
        kept = _checked_selection(checks, features, self.features) if self.view.valid else None
        return self._changed(checks, features=kept)

    def with_name(self, name: str) -> FeatureViewReference:
        """Return a reference whose features are named ``<name>.<feature>``."""
        checks = Checks("view", self.name)
        return self._changed(checks, name=checks.identifier("with_name", name))

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> FeatureViewReference:
        """Return a reference for which requests name the view's join keys (left) otherwise (right).

        Keys that aren't named keep the name they had.
        """
        checks = Checks("view", self.name)
        known = dict(self.join_key_map)
        keys = _checked_key_map(checks, join_key_map, known) if self.view.valid else None
        return self._changed(checks, join_key_map=keys)

    @property
    def request_keys(self) -> tuple[Field, ...]:
        """The join keys as requests name them, in the order of the view's own."""
        return tuple(Field(self.join_key_map[key.name], key.dtype) for key in self.view.join_keys)

    def __repr__(self) -> str:
        return f"{self.view!r}.with_name({self.name!r})"


class OnDemandReference(Immutable):
    """An on-demand view under a name, with the features selected.

    Raises:
        DefinitionError: an unknown feature, or a name that can't be one (collected while a repo is being
        loaded).
    """

    view: OnDemandFeatureView[..., Any]
    name: str
    features: tuple[str, ...]
    location: Location
    valid: bool

    def __init__(self, view: OnDemandFeatureView[..., Any]) -> None:
        location = Checks("view", view.name).location
        self._fill(view, view.name, view.feature_names, location, valid=view.valid)

    def _fill(  # what `__init__` and `_changed` share
        self,
        view: OnDemandFeatureView[..., Any],
        name: str,
        features: tuple[str, ...],
        location: Location,
        *,
        valid: bool,
    ) -> None:
        self.view = view
        self.name = name
        self.features = features
        self.location = location
        self.valid = valid
        self._seal()

    def _changed(
        self, checks: Checks, name: str | None = None, features: tuple[str, ...] | None = None
    ) -> OnDemandReference:
        changed = object.__new__(OnDemandReference)
        changed._fill(
            self.view,
            self.name if name is None else name,
            self.features if features is None else features,
            checks.location,
            valid=self.valid and checks.valid,
        )
        return changed

    def __getitem__(self, features: list[str] | tuple[str, ...]) -> OnDemandReference:
        """Return a reference that has only these of the features."""
        checks = Checks("view", self.name)
        kept = _checked_selection(checks, features, self.features) if self.view.valid else None
        return self._changed(checks, features=kept)

    def with_name(self, name: str) -> OnDemandReference:
        """Return a reference whose features are named ``<name>.<feature>``."""
        checks = Checks("view", self.name)
        return self._changed(checks, name=checks.identifier("with_name", name))

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
