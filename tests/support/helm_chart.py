"""Renders `deploy/helm/fastserve` as `helm template` would, without helm: gotpl runs Go's templates.

Not done here: dependencies, the order of hooks, a cluster to look things up in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from gotpl.exts.helm import HelmTemplateEngine

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "fastserve"


def values(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chart's values with others over them, as helm merges: maps by key, else replaced."""
    merged: dict[str, Any] = _merged(yaml.safe_load((CHART / "values.yaml").read_text()), overrides)
    return merged


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return copy.deepcopy(above)
    return dict(below) | {name: _merged(below.get(name), value) for name, value in above.items()}


def render(overrides: Mapping[str, Any] | None = None, release: str = "shop") -> list[dict[str, Any]]:
    """Return the objects that the chart gives with these values.

    Raises:
        Exception: a template fails, or gives what isn't YAML.
    """
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    context = {
        "Values": values(overrides or {}),
        "Release": {"Name": release, "Namespace": "features", "Service": "Helm", "IsInstall": True},
        "Chart": {
            "Name": about["name"],
            "Version": about["version"],
            "AppVersion": about["appVersion"],
        },
    }
    sources = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}
    shown = [name for name in sources if not name.startswith("_")]
    rendered = HelmTemplateEngine.from_sources(sources).render(dict.fromkeys(shown, context))
    assert "http://shop-fastserve.features:8080" in rendered.pop("NOTES.txt") or release != "shop"
    for text in rendered.values():
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            _refuse_a_key_twice(node)
    return [
        document
        for text in rendered.values()
        for document in yaml.safe_load_all(text)
        if document is not None
    ]


def _refuse_a_key_twice(node: Any) -> None:
    """Walk a document as YAML has it: two equal keys are an error by its rules, and PyYAML takes the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {keys}"
        for _, value in node.value:
            _refuse_a_key_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_a_key_twice(value)


def named(objects: list[dict[str, Any]], kind: str, suffix: str = "") -> dict[str, Any]:
    """Return the one object of a kind whose name ends so."""
    (found,) = [
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"] == f"shop-fastserve{suffix}"
    ]
    return found
