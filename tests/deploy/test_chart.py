"""The Helm chart: what it renders is what Kubernetes takes, and what cannot work is refused when it is rendered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import CHART, merged, missing_package, render

KUBERNETES = "1.31"
CUSTOM = ("RayCluster", "ServiceMonitor")
"""Kinds of operators, whose schemas no cluster has by itself."""
EVERYTHING: dict[str, Any] = {
    "replicaCount": 3,
    "database": True,
    "env": {"SAFELIGHT_MAX_QUEUED_REQUESTS": 128},
    "ray": {"enabled": True},
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "images-tls"},
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "apps"}}}]},
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "extraVolumes": [{"name": "models", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
}


@pytest.fixture(scope="module", autouse=True)
def _renderer() -> None:
    package = missing_package()
    if package is not None and not os.environ.get("CI"):
        pytest.skip(f"needs helm, or Debian's {package}")
    assert package is None, f"in CI no test is left out: install {package}"


def by_kind(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in manifests}


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, {"persistence": {"enabled": False}}], ids=["plain", "all", "no disk"]
)
def test_every_manifest_is_valid_for_kubernetes(values: dict[str, Any], tmp_path: Path) -> None:
    manifests = render(values, tmp_path)
    assert manifests
    for each in manifests:
        assert each["metadata"]["name"].startswith("pictures-safelight")
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_the_values_agree_with_their_schema_and_a_misspelt_one_does_not() -> None:
    schema, values = (yaml.safe_load((CHART / name).read_text()) for name in ("values.schema.json", "values.yaml"))
    jsonschema.validate(values, schema)
    jsonschema.validate(merged(values, EVERYTHING), schema)
    with pytest.raises(jsonschema.ValidationError, match="replicas"):
        jsonschema.validate({**values, "replicas": 2}, schema)


@pytest.mark.parametrize("values", [{"replicaCount": 2}, {"autoscaling": {"enabled": True}}, {"secret": ""}])
def test_what_cannot_work_is_refused_with_what_to_set(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"database: true|name the Secret"):
        render(values, tmp_path)


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
    secrets = [each for each in container["env"] if "KEY" in each["name"] or "URL" in each["name"]]
    assert all("valueFrom" in each for each in secrets if each["name"] != "SAFELIGHT_PUBLIC_URL")


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
