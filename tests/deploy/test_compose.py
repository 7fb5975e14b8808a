"""The compose file: valid by its specification, and each name in it one that something answers to."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fastserve.cli.entry import _parser
from fastserve.config import Settings, unknown_variables
from tests.support.server_process import ROOT

COMPOSE = ROOT / "deploy" / "compose"
# Made by whoever runs it.
MADE = {COMPOSE / "tls"}


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


def services() -> dict[str, Any]:
    found: dict[str, Any] = document()["services"]
    return found


def schema() -> dict[str, Any]:
    vendored = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json")
    found: dict[str, Any] = json.loads(vendored.read_text())
    return found


def test_it_is_valid_by_the_specification() -> None:
    jsonschema.validate(document(), schema())
    broken = document()
    broken["services"]["nginx"]["depend_on"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def test_what_is_mounted_is_there_and_nothing_is_mounted_to_be_written() -> None:
    for name, service in services().items():
        for volume in service.get("volumes", ()):
            source, _, mode = volume.split(":")
            assert mode == "ro", name
            path = Path(COMPOSE, source).resolve()
            assert path.exists() or path in MADE, f"{name}: {source}"


def test_everybody_waits_for_somebody_who_is_there() -> None:
    for service in services().values():
        for other, how in service.get("depends_on", {}).items():
            assert other in services()
            assert how["condition"] in {
                "service_started",
                "service_healthy",
                "service_completed_successfully",
            }


@pytest.mark.parametrize("name", ["fastserve-1", "fastserve-2", "seed"])
def test_the_servers_understand_their_settings(name: str) -> None:
    environ = {
        key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        for key, value in services()[name]["environment"].items()
    }
    assert unknown_variables(environ) == ()
    settings = Settings.load({}, environ)
    assert settings.store == "dynamodb://local?endpoint=http://dynamodb:8000"
    assert settings.admin_port == 9090
    assert services()[name]["read_only"] is True


def test_the_commands_are_ones_that_the_command_line_takes() -> None:
    (text,) = services()["seed"]["command"]
    commands = [command.split() for command in text.split(";")]
    assert [command[:2] for command in commands] == [["fastserve", "apply"], ["fastserve", "materialize"]]
    for command in commands:
        _parser().parse_args(command[1:])


def test_nginx_and_prometheus_ask_servers_that_are_there() -> None:
    nginx = (ROOT / "deploy" / "nginx" / "conf.d" / "fastserve.conf").read_text()
    asked = re.findall(r"^\s*server ([\w-]+):8080", nginx, re.MULTILINE)
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (targets,) = job["static_configs"]
    scraped = [target.partition(":")[0] for target in targets["targets"]]
    assert asked == scraped == [name for name in services() if name.startswith("fastserve")]
    assert job["job_name"] == "fastserve"  # the alerts' job
    for rules in config["rule_files"]:
        text = (ROOT / "deploy" / "prometheus" / Path(rules).name).read_text()
        assert "groups" in yaml.safe_load(text)
    source = yaml.safe_load((COMPOSE / "grafana" / "datasource.yaml").read_text())["datasources"][0]
    assert source["url"].partition("//")[2].partition(":")[0] in services()


def test_every_image_but_our_own_has_a_version() -> None:
    images = {service["image"] for service in services().values()}
    assert all(":" in image for image in images - {"fastserve"})
    assert not any(image.endswith(":latest") for image in images)


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
