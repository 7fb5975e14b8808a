"""`fastserve keys`: makes, lists and revokes the API keys of a file that servers watch.

Invariants
1. A key's secret is printed once, when it is made, and stands nowhere else.
2. The file is replaced as a whole, readable by its owner alone; one that can't be understood stays untouched.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastserve.cli.flags import Subparsers, add_command, add_settings, count_argument, load_settings
from fastserve.errors import DefinitionError, shown

if TYPE_CHECKING:
    from fastserve.api.api_keys import ApiKey

SECRET_BYTES = 32
DAY_NS = 86_400_000_000_000


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "keys", run, "make, list and revoke the API keys that clients show")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    create = actions.add_parser("create", help="make a key and print it, once", allow_abbrev=False)
    create.add_argument(
        "client", help="whose it is; a client has at most two, to change from one to the next"
    )
    create.add_argument(
        "--for",
        dest="workspaces",
        action="append",
        metavar="WORKSPACE",
        help="workspace it is for (several by repeating; default: all)",
    )
    create.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        choices=("read", "ingest"),
        help="what it is for (several by repeating; default: read)",
    )
    create.add_argument(
        "--days", type=count_argument(1), metavar="N", help="days until it expires (default: never)"
    )
    create.add_argument(
        "--priority",
        choices=("live", "batch"),
        default="live",
        help="under overload, requests with a key of priority batch are refused first (default: live)",
    )
    listed = actions.add_parser("list", help="show the keys, without their secrets", allow_abbrev=False)
    revoke = actions.add_parser("revoke", help="end a key: servers notice within seconds", allow_abbrev=False)
    revoke.add_argument("id", help="the key's id, as `fastserve keys list` shows it")
    for action in (create, listed, revoke):
        add_settings(action, ("api_keys",))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do one of the three."""
    settings = load_settings(arguments, environ)
    if settings.api_keys is None:
        raise DefinitionError("api_keys: expected the file of keys by --api-keys FILE, got none")
    path = Path(settings.api_keys)
    if arguments.action == "create":
        return create(path, arguments)
    if arguments.action == "revoke":
        return revoke(path, arguments.id)
    return show(path)


def create(path: Path, arguments: argparse.Namespace) -> int:
    """Make a key, add it to the file and print it.

    Raises:
        DefinitionError: the client has two already, or a name that can't be used; the file can't be used.
    """
    from fastserve.api.api_keys import ANY_WORKSPACE, KEYS_PER_CLIENT, PREFIX, READ, new_key

    now_ns = time.time_ns()
    keys = _read(path) if path.exists() else []
    own = [key for key in keys if key.client == arguments.client and key.is_valid_at(now_ns)]
    if len(own) >= KEYS_PER_CLIENT:
        listed = ", ".join(key.id for key in own)
        raise DefinitionError(
            f"client {shown(arguments.client)}: expected at most {KEYS_PER_CLIENT} keys, got {listed} "
            "and one more: revoke one of them first"
        )
    secret = PREFIX + urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    expires_ns = None if arguments.days is None else now_ns + arguments.days * DAY_NS
    key = new_key(
        secret,
        arguments.client,
        arguments.workspaces or [ANY_WORKSPACE],
        arguments.scopes or [READ],
        now_ns,
        expires_ns,
        arguments.priority,
    )
    _write(path, [*keys, key])
    print(secret)
    return 0


def show(path: Path) -> int:
    """Print the keys of the file as a table."""
    from fastserve.plan.text_table import text_table
    from fastserve.tiles.times import format_time

    now_ns = time.time_ns()
    rows = [
        [
            key.id,
            key.client,
            ", ".join(key.scopes),
            ", ".join(key.workspaces),
            key.priority,
            format_time(key.created_ns),
            "never" if key.expires_ns is None else format_time(key.expires_ns),
            "" if key.is_valid_at(now_ns) else "expired",
        ]
        for key in _read(path)
    ]
    print(text_table(["id", "client", "scopes", "workspaces", "priority", "created", "expires", ""], rows))
    return 0


def revoke(path: Path, key_id: str) -> int:
    """Take a key out of the file.

    Raises:
        DefinitionError: no such key, or the file can't be used.
    """
    keys = _read(path)
    left = [key for key in keys if key.id != key_id]
    if len(left) == len(keys):
        known = ", ".join(key.id for key in keys) or "none, for the file has none"
        raise DefinitionError(f"key: expected one of {known}, got {shown(key_id)}")
    _write(path, left)
    print(f"Revoked {key_id}.")
    return 0


def _read(path: Path) -> list[ApiKey]:
    from fastserve.server.key_file import read_keys

    return list(read_keys(path).keys)


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    from fastserve.api.api_keys import format_keys

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(format_keys(keys))  # made with mode 0600
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise DefinitionError(
            f"api_keys: expected a file that can be written, got {error.strerror}"
        ) from None
