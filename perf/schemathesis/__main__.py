"""`python -m perf.schemathesis`: requests made from the OpenAPI document, sent to the server that gave it.

Schemathesis runs in an environment of its own, `.tools/schemathesis-venv`, made at first use; the server runs
over a local store and two feature repos in turns: look-ups and pushed records, on-demand views. What isn't
asked of it stands in `schemathesis.toml`, each with its reason.

Invariants:
1. It ends with 1 when an answer isn't what the document says, a status is a fault of the server's, a worker
   has died or has written of a fault of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastserve.ingest.apply import execute, plan_apply
from fastserve.sdk.repo import load_repo
from fastserve.store.url import open_store
from perf import server
from perf.compare.environments import PackageEnvironment
from perf.data import REPOS
from perf.load.child import ROOT
from perf.load.free_port import free_port
from perf.soak.watch import children

_HERE = Path(__file__).parent
ENVIRONMENT = PackageEnvironment("schemathesis", _HERE / "requirements.txt")
# Where nothing can be pushed no push can be made up.
REPOS_AND_FLAGS: dict[str, list[str]] = {"soak": [], "on_demand": ["--exclude-path", "/ingest"]}
_STOP_WITHIN_S = 40.0
# What the server writes of a fault of its own; the tracebacks of on-demand views are their authors'.
_UNFORESEEN = b"ERROR fastserve: a request to "


def main() -> int:
    """Run against each repo; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.schemathesis", description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="of each operation")
    parser.add_argument("--repo", choices=list(REPOS_AND_FLAGS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    statuses = [run(name, options.examples, options.seed) for name in options.repo or REPOS_AND_FLAGS]
    return max(statuses)


def run(repo: str, examples: int, seed: int) -> int:
    """Run against one repo; give 0 if nothing was found.

    Raises:
        ChildError: the environment can't be made, or the server did not come up.
    """
    program = ENVIRONMENT.program("schemathesis")
    with tempfile.TemporaryDirectory() as folder:
        url = f"local:{folder}/store?sync=off"
        asyncio.run(_apply(REPOS / repo, url))
        port = free_port()
        command = server.command(REPOS / repo, url, port, workers=2)
        log = Path(folder) / "log"
        began_s = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=server.environment(),
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )
            try:
                server.await_ready(process, port, "/readyz")
                before = children(process.pid)
                asked = ["run", f"http://127.0.0.1:{port}/openapi.json", "--max-examples", str(examples)]
                asked += ["--seed", str(seed), "--continue-on-failure", *REPOS_AND_FLAGS[repo]]
                config = ["--config-file", str(_HERE / "schemathesis.toml")]
                found = subprocess.run([str(program), *config, *asked], cwd=folder, check=False)
                has_died = before != children(process.pid)
            finally:
                process.terminate()
                code = process.wait(_STOP_WITHIN_S)
        print(f"{repo}: {time.monotonic() - began_s:.0f} s")
        if has_died or code or _UNFORESEEN in log.read_bytes():
            print(f"the server ended with {code}:\n{log.read_text()[-4_000:]}", file=sys.stderr)
            return 1
        return found.returncode


async def _apply(repo: Path, url: str) -> None:
    store = await open_store(url)
    try:
        await execute(await plan_apply(load_repo(repo), store), store)
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
