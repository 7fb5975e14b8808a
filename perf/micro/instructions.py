"""Instructions per call, counted by callgrind: what compares two commits whatever the machine does beside.

    python -m perf.micro.instructions [--json FILE]      # minutes; needs valgrind (apt-get install valgrind)

One process under callgrind runs all cases. It calls `getppid` before and after the calls that count, and
callgrind is told to write down and begin anew there, so that starting Python costs time and no figure.

Invariants:
1. Counts are of user space, without the kernel; on one machine with one interpreter they repeat to a
   hundredth, large cases to a thousandth.
2. Counts of two machines, two interpreters or two versions of a library are not compared.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from perf.load.child import ROOT, ChildError
from perf.micro.suite import Case, all_cases

_MARK = "getppid"
_WARM_CALLS = 20
# So many calls that a stray one doesn't show; a large case has fewer.
_CALLS = 50
_TOTALS = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def count_instructions(tree: Path = ROOT) -> dict[str, float]:
    """Count a source tree's instructions per call by case.

    Raises:
        ChildError: there is no valgrind, or the run failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise ChildError("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        names = Path(folder) / "names.json"
        tool = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={_MARK}"]
        child = [sys.executable, "-m", "perf.micro.instructions", "--child", str(names)]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(tree)}
        ended = subprocess.run([*tool, *child], cwd=tree, env=environment, check=False, capture_output=True)
        if ended.returncode:
            raise ChildError(f"callgrind ended with {ended.returncode}: {ended.stderr.decode()[-2_000:]}")
        cases = orjson.loads(names.read_bytes())
        # Parts are numbered from 1: what is before the first mark, then each case and what comes after it.
        return {name: _total(out, 2 * place + 2) / calls for place, (name, calls) in enumerate(cases)}


def _total(out: Path, part: int) -> int:
    found = _TOTALS.search(out.with_name(f"{out.name}.{part}").read_text())
    if found is None:
        raise ChildError(f"callgrind wrote no total into part {part}")
    return int(found.group(1))


def _run_child(names: Path) -> None:
    """Run all cases between marks; write down their names and how often each was called."""
    done: list[tuple[str, int]] = []
    gc.disable()
    for name, case in all_cases():
        if case is None:
            continue
        calls = _calls(name)
        for _ in range(min(_WARM_CALLS, calls)):
            case()
        _count(case, calls)
        done.append((name, calls))
    names.write_bytes(orjson.dumps(done))


def _count(case: Case, calls: int) -> None:
    turns = range(calls)
    os.getppid()
    for _ in turns:
        case()
    os.getppid()


def _calls(name: str) -> int:
    return 5 if name.startswith(("request", "evaluate", "encode")) else _CALLS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.micro.instructions")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        _run_child(options.child)
        return
    try:
        counts = count_instructions()
    except ChildError as error:
        raise SystemExit(str(error)) from None
    for name, count in counts.items():
        print(f"{name:50} {count:14,.0f} instructions a call")
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(counts, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
