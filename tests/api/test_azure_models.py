"""Versions of a workspace's models, as the SDK's labels and listings ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from httpx import Response

from safelight.model.catalog import sprite_folder
from tests.api.control_plane import WORKSPACE, put_endpoint

TEMPLATE = "azureml://registries/own/deploymenttemplates/small/versions/1"


@pytest.fixture
def models(arm: Callable[..., Response]) -> Callable[..., Response]:
    """With a model of three versions, of which `2` came last, and another model."""
    for name, version in (("mine", "1"), ("mine", "10"), ("other", "1"), ("mine", "2")):
        body = {"properties": {"modelUri": str(sprite_folder())}}
        assert arm("PUT", f"/models/{name}/versions/{version}", body).status_code == 200
    return arm


def names(response: Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [row["name"] for row in response.json()["value"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["2", "10", "1"]),
        ("?$orderBy=createdtime desc&$top=1", ["2"]),
        ("?$orderBy=createdtime asc&$top=2", ["1", "10"]),
        ("?version=10", ["10"]),
        ("?listViewType=ActiveOnly", ["2", "10", "1"]),
        ("?listViewType=ListViewType.ACTIVE_ONLY", ["2", "10", "1"]),
        ("?listViewType=ArchivedOnly", []),
    ],
)
def test_versions_are_listed_with_the_last_one_registered_first(
    models: Callable[..., Response], query: str, expected: list[str]
) -> None:
    assert names(models("GET", f"/models/mine/versions{query}")) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stage=Production", "stage"),
        ("tags=team", "tags"),
        ("$skip=1", "$skip"),
        ("$orderBy=name", "$orderBy"),
        ("$top=0", "$top"),
        ("$top=-1", "$top"),
        ("$top=x", "$top"),
        (f"$top={'9' * 5000}", "$top"),
    ],
)
def test_a_filter_that_is_not_read_is_refused_and_not_passed_over(
    models: Callable[..., Response], query: str, field: str
) -> None:
    answer = models("GET", f"/models/mine/versions?{query}")

    assert (answer.status_code, answer.json()["error"]["target"]) == (400, field)


def test_a_model_is_listed_once_with_its_latest_version(models: Callable[..., Response]) -> None:
    listed = {row["name"]: row["properties"]["latestVersion"] for row in models("GET", "/models").json()["value"]}

    assert names(models("GET", "/models")) == ["sprite", "black-forest-labs-flux.1-schnell", "mine", "other"]
    assert (listed["mine"], listed["other"], listed["sprite"]) == ("2", "1", "1")
    assert names(models("GET", "/models?listViewType=ArchivedOnly")) == []


def test_a_model_tells_its_latest_version(models: Callable[..., Response]) -> None:
    shown = models("GET", "/models/mine").json()

    assert (shown["name"], shown["properties"]["latestVersion"]) == ("mine", "2")
    assert shown["id"] == f"{WORKSPACE}/models/mine"


@pytest.mark.parametrize("name", ["azureml:mine", "AzureML:mine", "mine"])
def test_a_name_may_keep_the_scheme_that_the_sdk_leaves_before_it(models: Callable[..., Response], name: str) -> None:
    assert names(models("GET", f"/models/{name}/versions?$top=1")) == ["2"]
    assert models("GET", f"/models/{name}").json()["name"] == "mine"
    assert models("GET", f"/models/{name}/versions/10").json()["name"] == "10"


def test_models_of_the_catalogue_have_versions_by_their_name_and_by_the_hubs(models: Callable[..., Response]) -> None:
    assert names(models("GET", "/models/sprite/versions")) == ["1"]
    assert names(models("GET", "/models/Black-Forest-Labs-FLUX.1-schnell/versions")) == ["1"]


@pytest.mark.parametrize("path", ["/models/nothing", "/models/nothing/versions"])
def test_a_model_that_is_not_there_is_404_with_what_lists_them(models: Callable[..., Response], path: str) -> None:
    answer = models("GET", path)

    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "no model 'nothing'; see `safelight model list`"


@pytest.mark.parametrize(
    "properties",
    [
        {"properties": {"azureml.deploymentTemplateOverride": TEMPLATE}},
        {"properties": {"AzureML.DeploymentTemplateOverride": TEMPLATE}},
        {"deploymentTemplate": TEMPLATE},
        {"deploymentTemplate": {"assetId": TEMPLATE}},
    ],
)
def test_a_deployment_by_a_template_is_refused_by_name(
    arm: Callable[..., Response], properties: dict[str, Any]
) -> None:
    put_endpoint(arm)

    answer = arm("PUT", "/onlineEndpoints/flux/deployments/blue", {"properties": {"model": "sprite"} | properties})

    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == "deploymentTemplate"
    assert "deployment templates are not read here" in answer.json()["error"]["message"]
    assert arm("GET", "/onlineEndpoints/flux/deployments").json()["value"] == []


@pytest.mark.parametrize(
    "templates",
    [
        {"defaultDeploymentTemplate": {"assetId": TEMPLATE}},
        {"allowedDeploymentTemplates": [{"assetId": TEMPLATE}]},
    ],
)
def test_a_model_with_a_template_is_refused_by_name(arm: Callable[..., Response], templates: dict[str, Any]) -> None:
    body = {"properties": {"modelUri": str(sprite_folder())} | templates}

    answer = arm("PUT", "/models/mine/versions/1", body)

    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "deploymentTemplate")
    assert arm("GET", "/models/mine").status_code == 404
