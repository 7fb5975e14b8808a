"""Virtual environments of those that are measured beside fastserve, each its own under `.tools`.

Knows what to install and where, nothing of what is measured.

Invariants:
1. What others need never enters the project's environment, nor does the project enter theirs.
2. Every package is held to a hash; an environment is made anew when its requirements change.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from perf.load.child import ROOT, ChildError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PackageEnvironment:
    """One environment: what is named first in its requirements, and the file that pins them."""

    package: str
    requirements: Path

    @property
    def folder(self) -> Path:
        return ROOT / ".tools" / f"{self.package}-venv"

    @property
    def version(self) -> str:
        """Give the version of the package that is pinned."""
        lines = self.requirements.read_text().splitlines()
        start = f"{self.package}=="
        (pinned,) = (line for line in lines if line.startswith(start))
        return pinned.removeprefix(start).split()[0]

    def program(self, name: str) -> Path:
        """Give the path of a program, after making the environment if it is missing or out of date.

        Raises:
            ChildError: the packages can't be installed.
        """
        stamp = self.folder / "requirements.sha256"
        digest = sha256(self.requirements.read_bytes()).hexdigest()
        if not stamp.is_file() or stamp.read_text() != digest:
            self._make()
            stamp.write_text(digest)
        return self.folder / "bin" / name

    def _make(self) -> None:
        where = self.folder.relative_to(ROOT)
        print(f"installing {self.package} {self.version} into {where} …", file=sys.stderr)
        venv.create(self.folder, clear=True, with_pip=True)
        pip = [str(self.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        held = ["--quiet", "--require-hashes", "--only-binary", ":all:", "-r", str(self.requirements)]
        if subprocess.run([*pip, *held], check=False).returncode:
            name = self.requirements.relative_to(ROOT)
            raise ChildError(f"pip could not install what {name} asks for")
