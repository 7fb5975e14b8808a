"""`fastserve check`: whether a feature repo is right, what is in it, and whether a store fits it.

With ``--files`` the views' files are opened, too. A store fits when every view has its table with the right
key and was applied. Changed definitions are told and let pass: rows of older layouts stay readable, and
`apply` is how they get newer.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastserve.cli.flags import Subparsers, add_command, add_settings, load_settings
from fastserve.config import Settings
from fastserve.errors import DefinitionError, DefinitionErrors

if TYPE_CHECKING:
    from fastserve.cli.workspace import Workspace


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "check", run, "look for errors in a feature repo, and in a store for it")
    parser.add_argument(
        "--files", action="store_true", help="open the views' files and compare their columns with the views'"
    )
    add_settings(parser, ("repo", "workspace", "store"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check the repo, and the store if one is named in any way."""
    import asyncio

    from fastserve.cli.workspace import load_workspace

    settings = load_settings(arguments, environ)
    workspace = load_workspace(settings)
    _check_pushes(workspace)
    print(summary(workspace))
    for warning in bundle_warnings(workspace):
        print(f"warning: {warning}")
    if arguments.files:
        print(files_text(workspace))
    if settings.store != Settings().store or arguments.store is not None:
        asyncio.run(_check_store(workspace))
    return 0


def summary(workspace: Workspace) -> str:
    """Return what is in the repo: a line for each service, and the totals."""
    from fastserve.plan.text_table import text_table

    repo, plan = workspace.repo, workspace.plan
    counts = ", ".join(
        _counted(len(found), one, many)
        for found, one, many in (
            (repo.entities, "entity", "entities"),
            (repo.sources, "source", "sources"),
            (repo.views, "view", "views"),
            (repo.on_demand_views, "on-demand view", "on-demand views"),
            (repo.services, "service", "services"),
        )
        if found or found is not repo.on_demand_views
    )
    rows = [
        [
            service.name,
            str(len(service.outputs)),
            str(service.key_count),
            ", ".join(field.name for field in service.join_keys),
        ]
        for service in plan.services.values()
    ]
    headings = ["service", "features", "keys per vector", "join keys"]
    table = [text_table(headings, rows, set(headings[1:3]))] if rows else []
    return "\n".join([f"Workspace {plan.workspace}: {counts}", *table])


def bundle_warnings(workspace: Workspace) -> list[str]:
    """Return what is to be said of bundles whose items may outgrow what an item can have."""
    from fastserve.plan.explain_bundles import MAX_BUNDLE_BYTES

    return [
        f"bundle {bundle.name}: an item with rows of all its {len(bundle.views)} views has about "
        f"{bundle.item_bytes:,} bytes, and room for {MAX_BUNDLE_BYTES:,}: rows that find none aren't written"
        for bundle in workspace.plan.bundles.values()
        if bundle.item_bytes > MAX_BUNDLE_BYTES
    ]


def files_text(workspace: Workspace) -> str:
    """Return how many files each view has, and whether their columns could be compared.

    Raises:
        DefinitionErrors: what is wrong with any view's files, all of it.
    """
    from fastserve.ingest.file_check import check_files
    from fastserve.plan.text_table import text_table

    checked, wrong = check_files(list(workspace.plan.views.values()))
    if wrong:
        raise DefinitionErrors(wrong)
    if not checked:
        return "No view has files."
    unknown = "not compared: a function makes them"
    rows = [
        [one.view, one.source, f"{one.files:,}", "fit" if one.columns_checked else unknown] for one in checked
    ]
    return text_table(["view", "source", "files", "columns"], rows, {"files"})


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _check_pushes(workspace: Workspace) -> None:
    """Look whether pushed records can be taken as the views say.

    Raises:
        DefinitionError: a view's transformation can't be applied to records.
    """
    from fastserve.sdk.sources import PushSource

    if any(isinstance(source, PushSource) for source in workspace.repo.sources.values()):
        from fastserve.ingest.stream import source_feeds

        source_feeds(workspace.plan.views.values())


async def _check_store(workspace: Workspace) -> None:
    from fastserve.ingest.apply import plan_apply

    url = " and ".join([workspace.stores.main, *workspace.stores.named.values()])
    fits = "fits" if not workspace.stores.named else "fit"
    store = await workspace.stores.open()
    try:
        plan = await plan_apply(workspace.repo, store, workspace=workspace.plan.workspace)
        external = [view.table for view in workspace.plan.views.values() if view.view.is_external]
        found = await store.describe_tables(external)
    finally:
        await store.close()
    for table in external:
        if found[table] is None:
            where = workspace.stores.url_of(table)
            raise DefinitionError(f"{where}: there is no table {table}, and whoever writes it has to make it")
    wrong = [f"table {table.name}: there is no such table" for table in plan.tables]
    wrong += [str(change) for change in plan.changes if change.state in {"new", "incompatible"}]
    if wrong:
        not_fit = "doesn't fit" if not workspace.stores.named else "don't fit"
        lines = [f"{url} {not_fit} the repo; `fastserve apply` makes what is missing:", *wrong]
        raise DefinitionError("\n  ".join(lines))
    for change in plan.changes:
        if change.state == "changed":
            print(f"{change}; `fastserve apply` takes it over")
    print(f"{url} {fits}.")
