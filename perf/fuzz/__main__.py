"""`python -m perf.fuzz`: HTTP, bodies, rows, blocks and the store's answers under atheris.

Atheris (libFuzzer for Python) runs in an environment of its own, `.tools/atheris-venv`, made at first use,
and takes the project's packages from the environment that this runs in. It begins with the golden corpus and
bodies that are right, and keeps whatever reaches code that nothing before it had reached.

Invariants:
1. It ends with 1 when a target found something; the bytes then lie in `.tools`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import orjson

from perf.compare.environments import PackageEnvironment
from perf.load.child import ROOT
from perf.load.described import text_row
from perf.soak.world import workspace_plan
from tests.support.fuzzing import CORPUS, documents

ENVIRONMENT = PackageEnvironment("atheris", Path(__file__).parent / "requirements.txt")
TARGETS = ("http", "api", "rows", "blocks", "answers")
_LENGTH_MAX = 4_096


def main() -> int:
    """Run the targets one after the other; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000, help="of each target")
    parser.add_argument("--only", choices=TARGETS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return max(run(target, options.runs, options.seed) for target in options.only or TARGETS)


def run(target: str, runs: int, seed: int) -> int:
    """Run one target; give 0 if nothing was found.

    Raises:
        ChildError: the environment can't be made.
    """
    python = ENVIRONMENT.program("python")
    packages = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    with tempfile.TemporaryDirectory() as folder:
        for number, seed_bytes in enumerate(seeds(target)):
            (Path(folder) / str(number)).write_bytes(seed_bytes)
        flags = [f"-runs={runs}", f"-seed={seed}", f"-max_len={_LENGTH_MAX}", "-timeout=30", "-verbosity=0"]
        flags += ["-artifact_prefix=.tools/"]
        command = [str(python), "-m", "perf.fuzz.targets", target, *flags, "-print_final_stats=1", folder]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": packages}, check=False)
    print(f"{target}: {runs:,} runs, {'nothing found' if not ended.returncode else 'FOUND SOMETHING'}")
    return min(ended.returncode, 1)


def seeds(target: str) -> list[bytes]:
    """Return what a target begins with."""
    if target == "http":
        return [path.read_bytes()[:_LENGTH_MAX] for path in sorted(CORPUS.glob("*/*.http"))]
    if target == "api":
        bodies = documents("narrow", {"user_id": "user00000001"}, "perf")
        return [orjson.dumps(body) for _, body in bodies]
    if target == "rows":
        header = bytes([1, 0, 0, 0]) + workspace_plan().views["text0"].layout.schema_id.to_bytes(4, "little")
        return [text_row(header, 50, key, 1_790_000_000) for key in range(4)]
    body = b'{"Responses":{"t":[{"k":{"S":"user1"},"v":{"B":"AAAA"}}]},"UnprocessedKeys":{}}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nx-amz-crc32: 1\r\n\r\n%b" % (len(body), body)
    return [body, answer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]


if __name__ == "__main__":
    sys.exit(main())
