"""Where a view's rows lie by what was applied: looked at before a job writes, and before it is recorded.

Knows what `apply` has recorded, and no rows. A job takes minutes or hours: meanwhile `apply` may move the
view into a bundle or another store, or make tables anew that were lost. What the job has put then lies where
nobody reads, or is gone, and a record of it would say of every key without a row that it has no events.

Invariants
1. No rows are put where the view wasn't applied to lie, nor recorded where it doesn't lie any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest.registry import Registry
from fastserve.plan.stores import MAIN_STORE
from fastserve.plan.views import ViewPlan


async def check_place(registry: Registry, plan: ViewPlan) -> int:
    """Return since when the view's tables are there (ns since the epoch), 0 where nothing is recorded of it.

    Raises:
        DefinitionError: the view was applied to lie elsewhere.
    """
    applied = await _applied(registry, plan)
    if applied is not None and not _is_place(plan, applied):
        there, here = _named(applied["table"], _store(applied)), _named(plan.table, plan.store)
        raise DefinitionError(
            f"view {plan.name!r}: expected its rows in {there}, where it was applied to lie, got definitions "
            f"that put them into {here}: run `fastserve apply` first, if these are the newer ones",
            plan.view.location,
        )
    return _since_ns(applied)


async def confirm_place(registry: Registry, plan: ViewPlan, since_ns: int) -> None:
    """Check that nothing has changed about it since `check_place` has returned ``since_ns``.

    Raises:
        StoreError: the view was moved, or its tables were made anew; the job has to be run again.
    """
    applied = await _applied(registry, plan)
    what = None
    if applied is not None and not _is_place(plan, applied):
        there = _named(applied["table"], _store(applied))
        what = f"it was moved from {_named(plan.table, plan.store)} to {there}"
    elif _since_ns(applied) != since_ns:
        what = "its tables were made anew"
    if what is not None:
        raise StoreError(f"view {plan.name!r}: while rows were written, {what}: run the job again")


async def _applied(registry: Registry, plan: ViewPlan) -> Mapping[str, Any] | None:
    return (await registry.definitions([plan.name]))[plan.name]


def _since_ns(applied: Mapping[str, Any] | None) -> int:
    return 0 if applied is None else int(applied.get("created_ns", 0))


def _is_place(plan: ViewPlan, applied: Mapping[str, Any]) -> bool:
    return (applied["table"], _store(applied)) == (plan.table, plan.store)


def _store(applied: Mapping[str, Any]) -> str:
    return str(applied.get("store", MAIN_STORE))


def _named(table: str, store: str) -> str:
    return f"table {table}" + (f" of store {store!r}" if store else "")
