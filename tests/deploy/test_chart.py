"""The Helm chart: what it renders is valid for Kubernetes and starts what fastserve understands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from fastserve.cli.entry import _parser
from fastserve.config import Settings, unknown_variables
from tests.support.helm_chart import CHART, named, render, values

ROOT = CHART.parents[2]
OLDEST, NEWEST = "1.27", "1.37"
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/fastserve", "tag": "2.0"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"server_timeout_ms": 1000000 // 2, "store": "redis://cache:6379?prefix=a&db=1"},
    "stores": {"hot": "redis+cluster://a:1,b:2?prefix=p.&credentials=HOT", "cold": "dynamodb://eu-central-1"},
    "env": [
        {"name": "AWS_REGION", "value": "eu-central-1"},
        {"name": "HOT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "hot-redis", "key": "password"}}},
    ],
    "repo": {"configMap": "features"},
    "apiKeys": {"secret": "keys"},
    "autoscaling": {"inFlightPerPod": 20},
    "service": {"annotations": {"a/b": "c"}},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/serve"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True},
    "materialize": {"enabled": True, "delay": "30m"},
    "apply": {"enabled": True, "serviceAccount": {"name": "apply"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "risk"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "priorityClassName": "high",
}
LEAST: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
    "topologySpread": False,
}
SETS = {"defaults": {}, "everything": EVERYTHING, "least": LEAST}
# Served by an operator's own definition, whose schema Kubernetes doesn't have.
FOREIGN = {"ServiceMonitor"}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overrides", SETS.values(), ids=SETS)
def test_what_it_renders_is_valid(overrides: dict[str, Any], version: str) -> None:
    objects = render(overrides)
    assert len({(each["kind"], each["metadata"]["name"]) for each in objects}) == len(objects)
    for each in objects:
        assert len(each["metadata"]["name"]) <= 52  # a CronJob's jobs add eleven characters to it
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("overrides", SETS.values(), ids=SETS)
def test_values_are_held_to_a_schema_that_has_all_of_them(overrides: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values(overrides), schema)
    assert set(schema["properties"]) == {*values({}), "global"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"worker": 2},
        {"workers": "2"},
        {"settings": {"store": "local:store"}},  # a pod's own, gone with it
        {"settings": {"port": 80}},  # the chart's
        {"stores": {"hot": "local:store"}},
        {"stores": {"a b": "redis://cache"}},
        {"stores": {"main": "redis://cache"}},
        {"materialize": {"delay": "30 minutes"}},
        {"drain": {"preStopSeconds": 0}},
    ],
    ids=str,
)
def test_values_that_would_do_harm_are_refused(overrides: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values(overrides), schema)


def test_the_schemas_notice_what_is_wrong() -> None:
    deployment = named(render(), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give every pod's specification, wherever it stands."""
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if each["kind"] in {"Deployment", "Job", "CronJob"}:
            yield spec["template"]["spec"]


def environ_of(container: dict[str, Any]) -> dict[str, str]:
    """Return a container's environment, without what it has out of Secrets."""
    return {each["name"]: each["value"] for each in container["env"] if "valueFrom" not in each}


def test_nobody_is_root_and_only_volumes_are_written_to() -> None:
    found = list(pods(render(EVERYTHING)))
    assert len(found) == 3
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001  # the image's
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "cpu" not in container["resources"]["limits"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_every_command_is_one_that_the_command_line_takes() -> None:
    commands = [container["args"] for pod in pods(render(EVERYTHING)) for container in pod["containers"]]
    assert sorted(command[0] for command in commands) == ["apply", "materialize", "serve"]
    for command in commands:
        _parser().parse_args(command)


@pytest.mark.parametrize("overrides", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_server_understands_its_settings(overrides: dict[str, Any]) -> None:
    objects = render(overrides)
    (container,) = named(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = environ_of(container)
    assert unknown_variables(environ) == ()
    file = Path(environ["FASTSERVE_CONFIG"])
    assert file.parent.as_posix() in {mount["mountPath"] for mount in container["volumeMounts"]}
    settings = Settings.load({}, environ, named(objects, "ConfigMap")["data"][file.name])
    given = values(overrides)
    assert settings.store == given["settings"]["store"]
    assert settings.stores == given["stores"]
    if given["apply"]["enabled"]:
        (job,) = named(objects, "Job", "-apply")["spec"]["template"]["spec"]["containers"]
        of_job = environ_of(job)
        assert Settings.load({}, of_job).stores == given["stores"]
    assert settings.workers == given["workers"] == int(container["resources"]["requests"]["cpu"])
    assert settings.host == settings.admin_host == "0.0.0.0"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "admin": settings.admin_port}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_secrets_of_stores_reach_all_that_open_them() -> None:
    containers = [container for pod in pods(render(EVERYTHING)) for container in pod["containers"]]
    assert len(containers) == 3
    for container in containers:
        found = {each["name"]: each["valueFrom"] for each in container["env"] if "valueFrom" in each}
        assert found == {"HOT_PASSWORD": {"secretKeyRef": {"name": "hot-redis", "key": "password"}}}


def test_a_pod_drains_within_its_grace_period() -> None:
    pod = named(render({"drain": {"preStopSeconds": 20, "shutdownSeconds": 50}}), "Deployment")["spec"][
        "template"
    ]["spec"]
    (container,) = pod["containers"]
    environ = environ_of(container)
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    settings = Settings.load({}, environ)
    assert settings.shutdown_timeout_ms == 50_000
    assert pod["terminationGracePeriodSeconds"] >= 20 + 50 + 2


def test_selectors_find_what_they_are_for() -> None:
    objects = render(EVERYTHING)
    deployment = named(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        named(objects, "Service")["spec"]["selector"],
        named(objects, "Service", "-admin")["spec"]["selector"],
        named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        named(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    job = named(objects, "CronJob", "-materialize")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]
    assert not selectors[0].items() <= job["labels"].items()  # a batch job is no server
    assert named(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "shop-fastserve"


def test_prometheus_is_told_of_the_admin_service_alone() -> None:
    objects = render(EVERYTHING)
    monitor = named(objects, "ServiceMonitor")
    assert (monitor["apiVersion"], set(monitor["spec"])) == (
        "monitoring.coreos.com/v1",
        {"jobLabel", "selector", "endpoints"},
    )
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [each for each in objects if each["kind"] == "Service"]
    (admin,) = [each for each in services if wanted <= each["metadata"]["labels"].items()]
    assert admin["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "fastserve"  # the alerts' job
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "admin", "path": "/metrics", "interval": "15s"}
    assert [port["name"] for port in admin["spec"]["ports"]] == ["admin"]


def test_pods_are_scaled_by_cpu_by_requests_in_flight_or_by_hand() -> None:
    metrics = named(render(EVERYTHING), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]
    name = metrics[1]["pods"]["metric"]["name"]
    sources = (ROOT / "fastserve" / "server").glob("metrics*.py")
    assert any(name in path.read_text() for path in sources), f"{name} is no metric"
    assert "replicas" not in named(render(), "Deployment")["spec"]
    assert named(render(LEAST), "Deployment")["spec"]["replicas"] == 3
    with pytest.raises(Exception, match="expected cpuUtilization or inFlightPerPod above 0"):
        render({"autoscaling": {"cpuUtilization": 0}})


def test_changed_settings_start_new_pods_and_unchanged_ones_do_not() -> None:
    def checksum(overrides: dict[str, Any]) -> str:
        template = named(render(overrides), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum({}) == checksum({"replicas": 5})
    assert checksum({}) != checksum({"settings": {"log_level": "debug"}})


def test_tables_are_made_by_an_account_of_its_own() -> None:
    with pytest.raises(Exception, match="expected a service account that may create tables"):
        render({"apply": {"enabled": True}})
    job = named(render(EVERYTHING), "Job", "-apply")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "apply"
