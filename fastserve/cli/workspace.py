"""A feature repo loaded and compiled for the store that is meant, as every command begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastserve.config import Settings
from fastserve.errors import DefinitionError, shown

if TYPE_CHECKING:
    from fastserve.plan.service import ServicePlan, WorkspacePlan
    from fastserve.sdk.repo import Repo
    from fastserve.store.addresses import StoreAddresses

LISTED_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class Workspace:
    """A repo, what became of it, and where its rows lie."""

    repo: Repo
    plan: WorkspacePlan
    stores: StoreAddresses

    def service(self, name: str) -> ServicePlan:
        """Return the plan of one service.

        Raises:
            DefinitionError: there is none of that name.
        """
        plan = self.plan.services.get(name)
        if plan is None:
            raise unknown("service", name, list(self.plan.services))
        return plan


def load_workspace(settings: Settings) -> Workspace:
    """Load and compile the repo that the settings name, with the table names of their stores.

    Raises:
        DefinitionError: what is wrong in the repo, all of it, or a store's URL.
    """
    from fastserve.plan.service import plan_workspace
    from fastserve.sdk.repo import load_repo
    from fastserve.store.addresses import addresses, configured_prefixes

    prefixes = configured_prefixes(settings.store, settings.stores)
    repo = load_repo(settings.repo)
    plan = plan_workspace(repo, prefixes, settings.workspace)
    return Workspace(repo, plan, addresses(settings.store, settings.stores, plan.homes))


def unknown(what: str, name: str, known: list[str]) -> DefinitionError:
    """Return the error for a name that isn't among ``known``."""
    listed = ", ".join(known[:LISTED_AT_MOST]) + (", …" if len(known) > LISTED_AT_MOST else "")
    return DefinitionError(
        f"{what}: expected one of {listed or 'none, for the repo has none'}, got {shown(name)}"
    )
