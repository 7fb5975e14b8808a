"""Which store a view lies in: the main one, or one that its definition names.

A workspace has one main store, which holds the records (`ingest.registry`) and every view that names no
store. Where the named ones are, the operator says: definitions hold their names alone.

Invariants
1. A view's rows and blocks lie in one store.
2. A view whose store isn't configured is never taken for one of the main store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastserve.errors import DefinitionError

if TYPE_CHECKING:
    from fastserve.sdk.views import FeatureView

MAIN_STORE = ""
"""What the store is called that has no name."""
MAIN_LABEL = "main"
"""What it is called where a name must stand: in metrics and traces. No other store may be called that."""


@dataclass(frozen=True, slots=True)
class TablePrefixes:
    """What the names of tables begin with in the main store, and in each that is configured by name."""

    main: str = ""
    named: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, view: FeatureView) -> str:
        """Return the prefix of a view's store.

        Raises:
            DefinitionError: the view's store isn't configured.
        """
        if view.store is None:
            return self.main
        prefix = self.named.get(view.store)
        if prefix is None:
            known = ", ".join(map(repr, sorted(self.named))) or "none"
            raise DefinitionError(
                f"view {view.name!r}: store: expected one that is configured ({known}), got {view.store!r}; "
                f"set it by --store {view.store}=URL, in FASTSERVE_STORES or in [stores] of fastserve.toml",
                view.location,
            )
        return prefix
