"""What got slower between two commits: `make perf-check BASE=…`, or this with options.

    python -m perf.micro.check BASE [--fail-over PERCENT]

The cases are those of the working tree, run over the package as it is in BASE and as it is here, one after
the other, on one machine with one interpreter. Instructions are compared, not times.

Invariants:
1. A case that BASE's code can't run is told and compared with nothing.
2. The working tree is not touched: BASE is unpacked into a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from perf.load.child import ROOT, ChildError
from perf.micro.instructions import count_instructions

# Below it a difference is the layout of memory as often as the code.
_NOTED_SHARE = 0.01


def unpack_base(base: str, folder: Path) -> None:
    """Put BASE's package and this tree's cases into a folder.

    Raises:
        ChildError: git doesn't know it.
    """
    archiving = ["git", "archive", "--format=tar", base, "fastserve"]
    packed = subprocess.run(archiving, cwd=ROOT, check=False, capture_output=True)
    if packed.returncode:
        said = packed.stderr.decode().strip()[:200]
        raise ChildError(f"BASE: expected a commit, got {base[:64]!r}: {said}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(ROOT / "perf", folder / "perf", ignore=shutil.ignore_patterns("__pycache__", "results"))


def compare(before: dict[str, float], after: dict[str, float]) -> tuple[list[str], float]:
    """Give a line for each case, the worst first, and by how much the worst got slower."""
    shares = {name: after[name] / count - 1 for name, count in before.items() if name in after}
    lines = []
    for name, share in sorted(shares.items(), key=lambda entry: -entry[1]):
        verdict = "slower" if share > _NOTED_SHARE else "faster" if share < -_NOTED_SHARE else "same"
        lines.append(f"{verdict:7} {share:+8.2%}  {before[name]:14,.0f} -> {after[name]:14,.0f}  {name}")
    lines += [f"{'new':53}{name}" for name in after if name not in before]
    lines += [f"{'gone':53}{name}" for name in before if name not in after]
    return lines, max(shares.values(), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.micro.check", description=__doc__)
    parser.add_argument("base", help="a commit")
    parser.add_argument("--fail-over", type=float, metavar="PERCENT", help="end with 1 past that")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpack_base(options.base, Path(folder))
            print(f"counting {options.base} …", file=sys.stderr)
            before = count_instructions(Path(folder))
        print("counting the working tree …", file=sys.stderr)
        lines, worst = compare(before, count_instructions())
    except ChildError as error:
        raise SystemExit(str(error)) from None
    print("instructions a call, before -> after", *lines, sep="\n")
    if options.fail_over is not None and worst * 100 > options.fail_over:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
