"""Feast's SDK reading the same rows from its own store, through Feast's server and through us.

`python -m perf.compare.feast.own_sdk` writes rows into a DynamoDB emulator by Feast's SDK, imports the repo
by `fastserve import-feast`, serves the tables by both servers, and lets Feast's installed SDK read them in
three ways: `online_store: type: dynamodb`, and `type: remote` at each server. It ends with 1 where a value
or a status differs.

Invariants:
1. The SDK is the one that is installed, unchanged; the readers differ in their configuration alone.
2. All read the same items of the same emulator, each time the same users, one after the other.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.compare.feast.environment import feast_command, feast_version
from perf.compare.feast.server import command, environment
from perf.load.child import ROOT, ChildError
from perf.load.free_port import free_port
from perf.server import listening

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = Path(__file__).parent / "own_sdk_client.py"
DYNOXIDE = ROOT / ".tools" / "dynoxide" / "dynoxide"
VIEWS = {"profile": 10, "spending": 10, "device": 10}
USERS = 1000
READY_TIMEOUT_S = 180.0
"""Feast's server takes five seconds of CPU to start; the machine may have other things to do."""
SIZES = ((1, 60), (10, 40), (100, 20), (500, 6))
"""How many rows a read asks for, and how often."""

_STORE = """\
project: people
provider: local
registry: registry.db
online_store:
  type: dynamodb
  region: local
  endpoint_url: {endpoint}
entity_key_serialization_version: 3
"""
_REMOTE = """\
project: people
provider: local
registry: {registry}
online_store:
  type: remote
  path: {url}
entity_key_serialization_version: 3
"""
_DEFINITIONS = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
rows = FileSource(name="rows", path="rows.parquet", timestamp_field="at")
for _name, _count in {views!r}.items():
    _schema = [Field(name="user_id", dtype=Int64)]
    _schema += [Field(name=f"{{_name}}_{{number}}", dtype=Float64) for number in range(_count)]
    globals()[_name] = FeatureView(
        name=_name, entities=[user], ttl=timedelta(days=1), schema=_schema, source=rows, online=True
    )
"""
OWN, THEIRS, OURS = "own store", "Feast's server", "fastserve"


def main() -> int:
    """Run the comparison, print its table, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder))
    print(table(found))
    return 1 if any(size["differing"] for size in found["sizes"].values()) else 0


def compare(place: Path) -> dict[str, Any]:
    """Write, import, serve and read.

    Raises:
        ChildError: Feast, the emulator or a server can't be had, or fails.
    """
    feast = feast_command()
    keys = {"AWS_ACCESS_KEY_ID": "perf", "AWS_SECRET_ACCESS_KEY": "perf", "AWS_DEFAULT_REGION": "local"}
    variables = {**environment(), **keys, "AWS_EC2_METADATA_DISABLED": "true"}
    repo, ours = place / "feast", place / "fastserve"
    with emulator() as endpoint:
        repo.mkdir()
        (repo / "feature_store.yaml").write_text(_STORE.format(endpoint=endpoint))
        (repo / "features.py").write_text(_DEFINITIONS.format(views=VIEWS))
        run([str(feast), "apply", "--skip-source-validation"], repo, variables)
        client(feast, variables, "write", {"repo": str(repo), "users": USERS})
        importing = [sys.executable, "-m", "fastserve", "import-feast", str(repo), "--output", str(ours)]
        run(importing, ROOT, {**variables, "PYTHONPATH": str(ROOT)})
        with contextlib.ExitStack() as stack:
            readers, urls = {OWN: str(repo)}, {}
            for name, arguments, cwd in (
                (THEIRS, None, repo),
                (OURS, [sys.executable, "-m", "fastserve", "serve", "--workers", "1"], ours),
            ):
                port = free_port()
                serving = command(feast, port) if arguments is None else [*arguments, "--port", str(port)]
                around = variables if arguments is None else {**variables, "PYTHONPATH": str(ROOT)}
                waiting = listening(
                    serving, port, "/health", cwd=cwd, environment=around, timeout_s=READY_TIMEOUT_S
                )
                stack.enter_context(waiting)
                urls[name] = f"http://127.0.0.1:{port}"
                readers[name] = str(remote(place / f"remote{port}", repo, urls[name]))
            asked = {"readers": readers, "urls": urls, "users": USERS, "sizes": SIZES}
            found: dict[str, Any] = client(feast, variables, "read", asked)
            return found


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    """Run the DynamoDB emulator; give its URL.

    Raises:
        ChildError: it isn't there.
    """
    if not DYNOXIDE.exists():
        raise ChildError(f"{DYNOXIDE.relative_to(ROOT)} is missing: `make tools` fetches it")
    port = free_port()
    with listening([str(DYNOXIDE), "--port", str(port)], port, "/", cwd=ROOT, environment=environment()):
        yield f"http://127.0.0.1:{port}"


def remote(folder: Path, repo: Path, url: str) -> Path:
    """Make a repo whose store is a server; give its folder."""
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(_REMOTE.format(registry=repo / "registry.db", url=url))
    return folder


def client(feast: Path, variables: dict[str, str], action: str, configuration: dict[str, Any]) -> Any:
    """Let Feast's SDK write or read; give what it says."""
    arguments = [str(feast.parent / "python"), str(CLIENT), action, json.dumps(configuration)]
    return json.loads(run(arguments, ROOT, variables).splitlines()[-1])


def run(arguments: list[str], cwd: Path, variables: dict[str, str]) -> str:
    """Run a program to its end; give what it wrote.

    Raises:
        ChildError: it failed.
    """
    done = subprocess.run(arguments, cwd=cwd, env=variables, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ChildError(f"{' '.join(arguments[:4])} failed; it wrote:\n{done.stderr[-2_000:]}")
    return done.stdout


def table(found: dict[str, Any]) -> str:
    """Give the figures as a page's table."""
    lines = [
        f"Feast {feast_version()}'s SDK, {found['features']} features of {len(VIEWS)} views; medians in ms",
        "",
        f"| rows | SDK, {OWN} | SDK, {THEIRS} | SDK, {OURS} | {THEIRS} alone | {OURS} alone | differ |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, of in found["sizes"].items():
        times = " | ".join(f"{of['median_ms'][name]:.1f}" for name in (OWN, THEIRS, OURS))
        alone = " | ".join(f"{of['answer_ms'][name]:.1f}" for name in (THEIRS, OURS))
        lines.append(f"| {size} | {times} | {alone} | {of['differing']} of {of['reads']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
