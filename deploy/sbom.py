"""Writes the bill of materials of what the server runs with: the lock file as CycloneDX 1.6 JSON, to stdout.

    python deploy/sbom.py requirements.lock pyproject.toml

It needs nothing but Python, and asks nobody: names, versions, hashes and conditions are the lock's.

Invariants
1. The same files give the same bytes, so that it can be compared and signed: it holds no time and no
   serial number.
2. A line of the lock that isn't understood is an error.
"""  # noqa: INP001 - run as a file

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))?"
    r"(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)


def bill(lock_text: str, pyproject_text: str) -> dict[str, Any]:
    """Return the document.

    Raises:
        ValueError: a line of the lock isn't a package of one version with its hashes.
    """
    project = tomllib.loads(pyproject_text)["project"]
    lines = re.sub(r"\s*\\\n\s*", " ", lock_text).splitlines()
    packages = [component(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    own = f"{project['name']}@{project['version']}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
            }
        },
        "components": packages,
        "dependencies": [{"ref": own, "dependsOn": [package["bom-ref"] for package in packages]}],
    }


def component(line: str) -> dict[str, Any]:
    """Return a line of the lock, on whose condition the package is installed as a property."""
    found = ENTRY.fullmatch(line)
    if found is None:
        raise ValueError(f"expected a package, its version and its hashes, got {line[:64]}")
    name = re.sub(r"[-_.]+", "-", found["name"]).lower()
    purl = f"pkg:pypi/{name}@{found['version']}"
    hashes = re.findall(r"sha256:([0-9a-f]{64})", found["hashes"])
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": found["version"],
        "purl": purl,
        # Of the files that may be installed, one each; a hash of the package itself there isn't.
        "externalReferences": [
            {
                "type": "distribution",
                "url": purl,
                "hashes": [{"alg": "SHA-256", "content": content} for content in hashes],
            }
        ],
    }
    if found["marker"]:
        made["properties"] = [{"name": "fastserve:marker", "value": found["marker"].strip()}]
    return made


if __name__ == "__main__":
    made = bill(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(made, indent=1) + "\n")
