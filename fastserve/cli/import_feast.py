"""`fastserve import-feast REPO --output DIR`: a Feast repo, ready to be served from Feast's own tables.

Reads `feature_store.yaml` and the registry file that it names, runs none of the repo's code, and writes a
feature repo of ours with its settings. Tables are neither read nor changed.

Invariants
1. What it writes has been loaded and compiled before the command says that it is done.
2. Files that are there already are kept, unless ``--force`` is given.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastserve.cli.flags import Subparsers, add_command
from fastserve.errors import DefinitionError, shown

if TYPE_CHECKING:
    from fastserve.cli.feast_repo import FeastTables, FeatureRepo

CONFIG_FILE = "feature_store.yaml"
DEFINITIONS_FILE = "features.py"
SETTINGS_FILE = "fastserve.toml"
DEFAULT_KEY_VERSION = 3
DEFAULT_NAME_TEMPLATE = "{project}.{table_name}"
VERSION_WARNING = (
    f"{CONFIG_FILE} names no entity_key_serialization_version: taken to be {DEFAULT_KEY_VERSION}, as by "
    "Feast today; if rows aren't found, an older Feast wrote them with another"
)
EXPORT_HINT = (
    "write it to a file by `python -c 'from feast import FeatureStore; "
    'open("registry.db", "wb").write(FeatureStore(".").registry.proto().SerializeToString())\'` '
    "and name that by --registry"
)


@dataclass(frozen=True, slots=True)
class FeastConfig:
    """What `feature_store.yaml` says."""

    tables: FeastTables
    registry: str
    store: str
    """The URL of the store that holds the tables."""
    warnings: tuple[str, ...] = ()


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "import-feast", run, "write a feature repo that serves a Feast repo's DynamoDB tables"
    )
    parser.add_argument(
        "feast_repo", metavar="REPO", help=f"folder of the Feast repo, with its {CONFIG_FILE}"
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder to write the feature repo into"
    )
    parser.add_argument("--registry", metavar="FILE", help="registry file (default: the one that REPO names)")
    parser.add_argument("--force", action="store_true", help="write over files that are there")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Write the feature repo, and say what it holds."""
    from fastserve.cli.feast_repo import write_repo
    from fastserve.wire.feast_registry import read_registry
    from fastserve.wire.protobuf import ProtobufError

    folder, output = Path(arguments.feast_repo), Path(arguments.output)
    config = read_config(folder / CONFIG_FILE, environ)
    path = Path(arguments.registry) if arguments.registry else registry_path(folder, config.registry)
    data = _bytes(path)
    project = config.tables.project
    try:
        registry = read_registry(data, project)
    except ProtobufError as error:
        raise DefinitionError(f"registry {shown(str(path))}: expected Feast's, got: {error}") from None
    if not registry.views:
        others = ", ".join(registry.projects) or "none"
        raise DefinitionError(
            f"registry {shown(str(path))}: expected feature views of project {shown(project)}, "
            f"got none (projects: {others}); does `feast apply` come first?"
        )
    origin = f"What Feast's project {project} serves, as `fastserve import-feast` read it in its registry."
    repo = write_repo(registry, config.tables, origin)
    if not repo.views:
        raise DefinitionError("\n  ".join(["none of the project's views can be served:", *repo.left_out]))
    _write(output, repo, config, force=arguments.force)
    _check(output)
    for line in (*config.warnings, *(f"left out: {line}" for line in repo.left_out)):
        print(f"fastserve: warning: {line}", file=sys.stderr)
    views, services = _counted(repo.views, "view"), _counted(repo.services, "service")
    print(f"Wrote {views} and {services} of project {project} into {output}/.")
    print(f"Serve them: cd {output} && fastserve serve")
    return 0


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_config(path: Path, environ: Mapping[str, str]) -> FeastConfig:
    """Read a `feature_store.yaml`; ``$NAME`` in it stands for variables, as with Feast.

    Raises:
        DefinitionError: it can't be read, or names an online store that isn't DynamoDB.
    """
    from fastserve.cli.feast_repo import FeastTables

    document = _yaml(path, environ)
    project = document.get("project")
    if not isinstance(project, str) or not project:
        raise DefinitionError(f"{path}: project: expected a name, got {shown(project)}")
    online = document.get("online_store")
    kind = online.get("type") if isinstance(online, dict) else online
    if not isinstance(online, dict) or kind != "dynamodb":
        raise DefinitionError(f"{path}: online_store: expected one of type dynamodb, got {shown(kind)}")
    registry = document.get("registry")
    options = registry if isinstance(registry, dict) else {"path": registry}
    version = document.get("entity_key_serialization_version")
    if version is not None and (type(version) is not int or not 1 <= version <= 3):
        raise DefinitionError(
            f"{path}: entity_key_serialization_version: expected 1, 2 or 3, got {shown(version)}"
        )
    return FeastConfig(
        FeastTables(
            project,
            DEFAULT_KEY_VERSION if version is None else version,
            _name_template(path, online),
            versioned=options.get("enable_online_feature_view_versioning") is True,
        ),
        _registry_name(path, options),
        _store_url(path, online),
        () if version is not None else (VERSION_WARNING,),
    )


def _name_template(path: Path, online: Mapping[str, Any]) -> str:
    template = online.get("table_name_template") or DEFAULT_NAME_TEMPLATE
    try:
        str.format(template, project="", table_name="")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise DefinitionError(
            f"{path}: online_store.table_name_template: expected a text like {DEFAULT_NAME_TEMPLATE}, "
            f"got {shown(template)}"
        ) from None
    return str(template)


def _yaml(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise DefinitionError("import-feast needs PyYAML: pip install 'fastserve[feast]'") from None
    text = _bytes(path).decode(errors="replace")
    try:
        document = yaml.safe_load(_expanded(text, environ))
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: expected YAML, got what isn't: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise DefinitionError(f"{path}: expected a mapping, got {shown(document)}")
    return document


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """Put variables in place of ``$NAME`` and ``${NAME}``; those that aren't set stay as they stand."""

    def value(match: re.Match[str]) -> str:
        return environ.get(match[1] or match[2], match[0])

    return re.sub(r"\$(?:(\w+)|\{([^}]*)\})", value, text, flags=re.ASCII)


def _registry_name(path: Path, options: Mapping[str, Any]) -> str:
    kind = options.get("registry_type") or "file"
    name = options.get("path")
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"{path}: registry: expected a path, got {shown(name)}")
    return name if kind == "file" else f"{kind}:{name}"


def registry_path(folder: Path, name: str) -> Path:
    """Return the registry's file.

    Raises:
        DefinitionError: it isn't a file of this machine.
    """
    if ":" in name:
        raise DefinitionError(f"registry: expected a file of this machine, got {shown(name)}; {EXPORT_HINT}")
    return folder / name


def _store_url(path: Path, online: Mapping[str, Any]) -> str:
    region = online.get("region")
    if not isinstance(region, str) or not region:
        raise DefinitionError(f"{path}: online_store.region: expected a name, got {shown(region)}")
    endpoint = online.get("endpoint_url")
    parameters = [f"endpoint={quote(str(endpoint), safe=':/')}"] if endpoint else []
    if online.get("consistent_reads") is True:
        parameters.append("consistent_reads=true")
    url = f"dynamodb://{region}" + (f"?{'&'.join(parameters)}" if parameters else "")
    from fastserve.store.url import parse_store_url

    parse_store_url(url)
    return url


def _write(output: Path, repo: FeatureRepo, config: FeastConfig, *, force: bool) -> None:
    from fastserve.sdk.repo import WORKSPACE

    project = config.tables.project
    workspace = (
        project if WORKSPACE.fullmatch(project) else re.sub(r"[^A-Za-z0-9_.-]", "_", f"feast_{project}")
    )
    settings = (
        f"# The settings of `fastserve import-feast`; `fastserve serve` reads them where it is started.\n"
        f"workspace = {json.dumps(workspace[:100])}\n\n[server]\nstore = {json.dumps(config.store)}\n"
    )
    texts = {DEFINITIONS_FILE: repo.text, SETTINGS_FILE: settings}
    try:
        output.mkdir(parents=True, exist_ok=True)
        there = [name for name in texts if (output / name).exists()]
        if there and not force:
            raise DefinitionError(
                f"--output {shown(str(output))}: expected a folder without {there[0]}, got one with it "
                "(--force writes over it)"
            )
        for name, text in texts.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DefinitionError(
            f"--output {shown(str(output))}: expected a folder to write, got: {reason}"
        ) from None


def _check(output: Path) -> None:
    from fastserve.plan.service import plan_workspace
    from fastserve.sdk.repo import load_repo

    plan_workspace(load_repo(output))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DefinitionError(f"{shown(str(path))}: expected a readable file, got: {reason}") from None
