"""The bill of materials names what the lock file does, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from deploy.sbom import component
from tests.test_locks import ROOT, entries


def test_every_package_of_the_lock_is_in_it_with_its_hashes_and_condition() -> None:
    command = [sys.executable, "deploy/sbom.py", "requirements.lock", "pyproject.toml"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    document = json.loads(printed)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    expected = {}
    for requirement, hashes in entries("requirements.lock"):
        version = str(requirement.specifier).removeprefix("==")
        purl = f"pkg:pypi/{canonicalize_name(requirement.name)}@{version}"
        expected[purl] = (sorted(hashes), requirement.marker is not None)
    found = {
        each["purl"]: (
            sorted("sha256:" + one["content"] for one in each["externalReferences"][0]["hashes"]),
            "properties" in each,
        )
        for each in document["components"]
    }
    assert found == expected
    assert len(document["components"]) == len(expected)
    (own,) = document["dependencies"]
    assert own["ref"] == document["metadata"]["component"]["bom-ref"]
    assert set(own["dependsOn"]) == set(expected)


@pytest.mark.parametrize("line", ["numpy", "numpy>=2 --hash=sha256:" + "0" * 64, "numpy==2.4.6", "-e ."])
def test_a_line_that_is_no_locked_package_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected a package, its version and its hashes"):
        component(line)


def test_make_makes_it() -> None:
    rule = (Path(ROOT) / "Makefile").read_text(encoding="utf-8").partition("\nsbom:")[2]
    assert "deploy/sbom.py requirements.lock pyproject.toml" in rule.split("\n\n")[0]
