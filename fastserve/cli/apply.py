"""`fastserve apply`: shows what a repo changes in a store, asks, and does it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from fastserve.cli.flags import Subparsers, add_command, add_settings, load_settings
from fastserve.config import Settings
from fastserve.errors import DefinitionError

NOT_DONE = 1


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "apply", run, "create what the store lacks for a feature repo, after showing the plan"
    )
    parser.add_argument("--yes", action="store_true", help="apply without asking")
    add_settings(parser, ("repo", "store", "workspace"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Apply one repo to one store."""
    import asyncio

    return asyncio.run(apply(load_settings(arguments, environ), yes=arguments.yes))


async def apply(settings: Settings, *, yes: bool) -> int:
    """Show the plan, ask unless told to go on, and execute it; return the exit code.

    Raises:
        DefinitionError: the repo is wrong, holds changes that can't be made, or nobody can be asked.
        StoreError: the store failed.
    """
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.apply import execute, plan_apply

    workspace = load_workspace(settings)
    store = await workspace.stores.open()
    try:
        plan = await plan_apply(workspace.repo, store, workspace=workspace.plan.workspace)
        print(f"Workspace {plan.workspace} in {settings.store}")
        for line in plan.lines():
            print(f"  {line}")
        if plan.incompatible:
            await execute(plan, store)  # which refuses, and says why
        if plan.empty:
            print("Nothing to do.")
            return 0
        if not yes and not _is_agreed():
            print("Nothing was changed.")
            return NOT_DONE
        await execute(plan, store)
        print("Applied.")
    finally:
        await store.close()
    return 0


def _is_agreed() -> bool:
    """Ask on the terminal.

    Raises:
        DefinitionError: there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise DefinitionError(
            "apply: expected --yes where nobody can be asked, got neither it nor a terminal"
        )
    try:
        answer = input("Apply this? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}
