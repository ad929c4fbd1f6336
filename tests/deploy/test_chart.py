"""The Helm chart: what it renders is what Kubernetes takes, and what cannot work is refused when it is rendered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from safelight.serving.backends.child_process import EXIT_TIMEOUT_S
from safelight.settings import Settings
from tests.deploy.chart import CHART, ROOT, merged, missing_package, render

KUBERNETES = "1.31"
CUSTOM = ("RayCluster", "ServiceMonitor")
"""Kinds of operators, whose schemas no cluster has by itself."""
EVERYTHING: dict[str, Any] = {
    "replicaCount": 3,
    "database": True,
    "env": {"SAFELIGHT_MAX_QUEUED_REQUESTS": 128},
    "secretEnv": {"HF_TOKEN": "hub-token"},
    "persistence": {"accessModes": ["ReadWriteMany"]},
    "ray": {"enabled": True},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "images-tls"},
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"name": "apps"}}}],
        "egress": [{"ports": [{"port": 4318}]}],
    },
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "extraVolumes": [{"name": "models", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
}


ODD: dict[str, Any] = EVERYTHING | {
    "model": "1e3",
    "secret": "123",
    "image": {"repository": "0x1f", "tag": "1.0"},
    "secretEnv": {"NO": "off"},
    "persistence": {"accessModes": ["ReadWriteMany"], "storageClass": "yes", "existingClaim": "1e3", "size": "1"},
    "ingress": {"enabled": True, "className": "on", "tlsSecret": "null", "host": "1.5"},
    "serviceMonitor": {"enabled": True},
}
"""Names that YAML reads as something else if they are not quoted."""
PAGE = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
OF_THE_PAGE: dict[str, Any] = yaml.safe_load(PAGE.partition("```yaml\n")[2].partition("```")[0])


@pytest.fixture(scope="module", autouse=True)
def _renderer() -> None:
    package = missing_package()
    if package is not None and not os.environ.get("CI"):
        pytest.skip(f"needs helm, or Debian's {package}")
    assert package is None, f"in CI no test is left out: install {package}"


def by_kind(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in manifests}


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("pictures", {}),
        ("pictures", EVERYTHING),
        ("pictures", {"persistence": {"enabled": False}}),
        ("true", ODD),
        ("true", {"persistence": {"storageClass": "yes", "size": "1"}}),
        ("pictures", OF_THE_PAGE),
    ],
    ids=["plain", "all", "no disk", "odd", "an odd class of storage", "the page's"],
)
def test_every_manifest_is_valid_for_kubernetes(release: str, values: dict[str, Any], tmp_path: Path) -> None:
    manifests = render(values, tmp_path, release=release)
    assert manifests
    for each in manifests:
        assert each["metadata"]["name"].startswith(f"{release}-safelight")
        assert all(isinstance(value, str) for value in each["metadata"]["labels"].values())
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_the_values_agree_with_their_schema_and_a_misspelt_one_does_not() -> None:
    schema, values = (yaml.safe_load((CHART / name).read_text()) for name in ("values.schema.json", "values.yaml"))
    jsonschema.validate(values, schema)
    jsonschema.validate(merged(values, EVERYTHING), schema)
    jsonschema.validate(merged(values, ODD), schema)
    jsonschema.validate(merged(values, OF_THE_PAGE), schema)


@pytest.mark.parametrize(
    "misspelt",
    [
        {"replicas": 2},
        {"networkPolicy": {"form": []}},
        {"ray": {"workers": {"replicas": 2}}},
        {"ray": {"head": {"nodeSelector": {}}}},
        {"ingress": {"hosts": []}},
        {"autoscaling": {"min": 1}},
        {"service": {"ports": 80}},
        {"podDisruptionBudget": {"maxUnavailable": 1}},
        {"serviceMonitor": {"labels": {}}},
    ],
)
def test_a_value_that_the_chart_does_not_have_is_refused_wherever_it_stands(misspelt: dict[str, Any]) -> None:
    schema, values = (yaml.safe_load((CHART / name).read_text()) for name in ("values.schema.json", "values.yaml"))
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate(merged(values, misspelt), schema)


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"replicaCount": 2}, "database: true"),
        ({"autoscaling": {"enabled": True}}, "database: true"),
        ({"secret": ""}, "name the Secret"),
        ({"terminationGracePeriodSeconds": 45}, "set it to 50 or more"),
        ({"env": {"SAFELIGHT_DRAIN_TIMEOUT_S": 120}}, "set it to 140 or more"),
        ({"env": {"SAFELIGHT_DRAIN_TIMEOUT_S": "120"}}, "set it to 140 or more"),
        ({"replicaCount": 2, "database": True}, "ReadWriteMany"),
        ({"autoscaling": {"enabled": True}, "database": True}, "ReadWriteMany"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_set(values: dict[str, Any], remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=remedy):
        render(values, tmp_path)


@pytest.mark.parametrize("release", ["1st", "a.b", "2"])
def test_a_release_whose_name_no_service_may_have_is_refused(release: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begin it with a letter"):
        render({}, tmp_path, release=release)


def test_no_variable_of_kubernetes_is_taken_for_a_setting(tmp_path: Path) -> None:
    """It tells each pod of the Services beside it: SAFELIGHT_PORT, of one that is called safelight."""
    kinds = by_kind(render(EVERYTHING, tmp_path, release="safelight"))
    cluster = kinds["RayCluster"]["spec"]
    templates = [kinds["Deployment"]["spec"]["template"], cluster["headGroupSpec"]["template"]]
    for each in [*templates, *(group["template"] for group in cluster["workerGroupSpecs"])]:
        assert each["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("value", "text"), [(33554432, "33554432"), (0.5, "0.5"), (True, "true"), ('a "b"', 'a "b"'), ("1e6", "1e6")]
)
def test_a_variable_is_what_was_written(value: object, text: str, tmp_path: Path) -> None:
    pod = by_kind(render({"env": {"SAFELIGHT_X": value}}, tmp_path))["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "SAFELIGHT_X", "value": text} in pod["containers"][0]["env"]


def test_gateways_of_one_database_share_the_volume_and_no_data_directory(tmp_path: Path) -> None:
    pod = by_kind(render(EVERYTHING, tmp_path))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert "emptyDir" in volumes[mounts[variables["SAFELIGHT_DATA_DIR"]]]
    assert "persistentVolumeClaim" in volumes[mounts["/var/lib/safelight"]]
    assert variables["SAFELIGHT_IMAGE_STORE_URL"].startswith("/var/lib/safelight/")


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, "Recreate"),
        ({"database": True}, "Recreate"),
        ({"database": True, "persistence": {"enabled": False}}, None),
        ({"database": True, "persistence": {"accessModes": ["ReadWriteMany"]}}, None),
        ({"persistence": {"enabled": False}}, "Recreate"),
    ],
)
def test_an_update_starts_a_new_gateway_beside_the_old_one_only_where_it_can(
    values: dict[str, Any], strategy: str | None, tmp_path: Path
) -> None:
    deployment = by_kind(render(values, tmp_path))["Deployment"]
    assert deployment["spec"]["strategy"].get("type") == strategy


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"env": {"SAFELIGHT_DRAIN_TIMEOUT_S": 0}}])
def test_an_update_takes_no_gateway_away_before_what_it_has_may_have_finished(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """Nor before a new one is ready, where there can be two at once."""
    deployment = by_kind(render(values, tmp_path))["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    given = {each["name"]: each.get("value") for each in container["env"]}
    drain_s = float(given.get("SAFELIGHT_DRAIN_TIMEOUT_S", Settings().drain_timeout_s))
    before_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before_s + drain_s + EXIT_TIMEOUT_S
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert (
        container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/health/live"
    )
    if "rollingUpdate" in deployment["strategy"]:
        assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "all"])
def test_no_pod_is_root_or_may_write_to_its_image_and_no_secret_is_an_argument(
    values: dict[str, Any], tmp_path: Path
) -> None:
    pod = by_kind(render(values, tmp_path))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["args"] == ["serve", "sprite", "--api-key-file", "/run/secrets/safelight/api-key"]
    secrets = [each for each in container["env"] if any(word in each["name"] for word in ("KEY", "DATABASE", "TOKEN"))]
    assert secrets
    assert all("valueFrom" in each for each in secrets)


def test_what_is_selected_is_what_the_gateways_are_called(tmp_path: Path) -> None:
    kinds = by_kind(render(EVERYTHING, tmp_path))
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        kinds["Deployment"]["spec"]["selector"]["matchLabels"],
        kinds["Service"]["spec"]["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    assert kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == kinds["Deployment"]["metadata"]["name"]
    assert "replicas" not in kinds["Deployment"]["spec"]  # the autoscaler's


def test_rays_nodes_run_the_servers_own_image_and_only_they_reach_each_other(tmp_path: Path) -> None:
    kinds = by_kind(render(EVERYTHING, tmp_path))
    (gateway,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    cluster = kinds["RayCluster"]["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {each["template"]["spec"]["containers"][0]["image"] for each in groups} == {gateway["image"]}
    pods = [each["template"]["metadata"]["labels"] for each in groups]
    (peers,) = [each["from"] for each in kinds["NetworkPolicy"]["spec"]["ingress"] if "ports" not in each]
    assert all(peers[0]["podSelector"]["matchLabels"].items() <= each.items() for each in pods)
    environment = {each["name"]: each.get("value") for each in gateway["env"]}
    assert environment["SAFELIGHT_RUNTIME"] == "ray"
    for group, container in ((each, each["template"]["spec"]["containers"][0]) for each in groups):
        port = str(container["readinessProbe"]["tcpSocket"]["port"])
        assert port == group["rayStartParams"].get("node-manager-port", "6379")
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
