"""What a PATCH changes, and how a client without the SDK waits for an operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from httpx import Response

from tests.api.control_plane import put_deployment, put_endpoint

OPERATION = "AzureAsyncOperationUri"


@pytest.fixture
def flux(arm: Callable[..., Response]) -> Callable[..., Response]:
    """With an endpoint."""
    put_endpoint(arm, {"tags": {"team": "art"}, "properties": {"description": "mine", "properties": {"a": "b"}}})
    return arm


@pytest.fixture
def blue(flux: Callable[..., Response]) -> Callable[..., Response]:
    """With a deployment that can take traffic, too."""
    put_deployment(flux)
    return flux


def endpoint(arm: Callable[..., Response]) -> dict[str, Any]:
    """As it is when what was begun is done."""
    while (shown := arm("GET", "/onlineEndpoints/flux").json())["properties"]["provisioningState"] == "Updating":
        pass
    return dict(shown)


def test_a_patch_that_carries_traffic_applies_it_and_keeps_the_rest(blue: Callable[..., Response]) -> None:
    answer = blue("PATCH", "/onlineEndpoints/flux", {"properties": {"traffic": {"blue": 100}}})
    shown = endpoint(blue)

    assert answer.status_code == 200
    assert shown["properties"]["traffic"] == {"blue": 100}
    assert (shown["tags"], shown["properties"]["description"]) == ({"team": "art"}, "mine")
    assert shown["properties"]["properties"] == {"a": "b"}

    blue("PATCH", "/onlineEndpoints/flux", {"tags": {"team": "engineering"}, "properties": {"traffic": {}}})
    shown = endpoint(blue)
    assert (shown["tags"], shown["properties"]["traffic"]) == ({"team": "engineering"}, {})


def test_a_patch_changes_each_of_the_fields_that_can_change(blue: Callable[..., Response]) -> None:
    changes = {
        "authMode": "key",
        "description": "",
        "properties": {"c": "d"},
        "mirrorTraffic": {"blue": 10},
        "publicNetworkAccess": "Disabled",
    }

    body = {"identity": {"type": "SystemAssigned"}, "properties": changes}
    assert blue("PATCH", "/onlineEndpoints/flux", body).status_code == 200
    shown = endpoint(blue)["properties"]

    assert (shown["description"], shown["properties"]) == (None, {"a": "b", "c": "d"})
    assert (shown["mirrorTraffic"], shown["publicNetworkAccess"]) == ({"blue": 10}, "Disabled")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("", {"properties": {"traffic": {"green": 100}}}, "has no deployment 'green'"),
        ("", {"properties": {"traffic": {"blue": 90}}}, "traffic adds up to 90 percent"),
        ("", {"properties": {"traffic": "blue=100"}}, "properties.traffic must be an object"),
        ("", {"traffic": {"blue": 100}}, "unknown parameter 'traffic'; accepted are: tags, identity, properties"),
        ("", {"properties": {"trafic": {"blue": 100}}}, "'properties.trafic' (did you mean 'traffic'?)"),
        ("", {"properties": {"mirror_trafic": {}}}, "mirrorTraffic"),
        ("", {"properties": {"authMode": "AMLToken"}}, "auth_mode of endpoint 'flux' is key and cannot be changed"),
        ("", {"properties": {"keys": {"primaryKey": "s3cret-s3cret"}}}, "unknown parameter 'properties.keys'"),
        ("", {"properties": {"properties": {"a": "c"}}}, "properties can be added, but not changed"),
        ("", {"identity": {"type": "UserAssigned"}}, "identity.type must be one of 'SystemAssigned'"),
        ("", {"location": "elsewhere"}, "unknown parameter 'location'"),
        (
            "/deployments/blue",
            {"properties": {"traffic": 100}},
            "unknown parameter 'properties'; accepted are: tags, sku",
        ),
        ("/deployments/blue", {"sku": {"capacity": 2, "tier": "x"}}, "unknown parameter 'sku.tier'"),
        ("/deployments/blue", {"sku": {"name": "Large"}}, "sku.name must be one of 'Default'"),
    ],
)
def test_a_patch_that_cannot_be_applied_is_refused_by_its_field_and_changes_nothing(
    flux: Callable[..., Response], path: str, body: dict[str, Any], message: str
) -> None:
    before = endpoint(flux)

    answer = flux("PATCH", f"/onlineEndpoints/flux{path}", body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert "s3cret" not in answer.text
    assert endpoint(flux) == before


@pytest.mark.parametrize("path", ["/onlineEndpoints/flux", "/onlineEndpoints/flux/deployments/blue"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_answer_says_in_its_body_too_where_to_ask_how_the_operation_stands(
    blue: Callable[..., Response], method: str, path: str
) -> None:
    answer = blue(method, path, {"properties": {"model": "sprite"}} if method == "PUT" else {"tags": {}})

    assert answer.status_code == 200, answer.text
    own = answer.json()["properties"]["properties"]
    assert own[OPERATION] == answer.headers["azure-asyncoperation"]
    assert own[OPERATION].startswith("http://testserver/subscriptions/s/providers/")


@pytest.mark.parametrize("spelling", [OPERATION, OPERATION.lower()])
def test_an_operation_that_is_sent_back_with_the_resource_is_no_property_of_it(
    blue: Callable[..., Response], spelling: str
) -> None:
    for path in ("/onlineEndpoints/flux", "/onlineEndpoints/flux/deployments/blue"):
        body = {"properties": {"model": "sprite", "properties": {"a": "b", spelling: "https://127.0.0.1/gone"}}}
        assert blue("PUT", path, body).status_code == 200
        assert endpoint(blue)
        assert blue("GET", path).json()["properties"]["properties"] == {"a": "b"}


def test_scale_settings_are_kept_and_on_one_machine_reported_as_without_effect(flux: Callable[..., Response]) -> None:
    scale = {
        "scaleType": "TargetUtilization",
        "minInstances": 2,
        "maxInstances": 5,
        "pollingInterval": "PT10S",
        "targetUtilizationPercentage": 60,
    }

    flux("PUT", "/onlineEndpoints/flux/deployments/blue", {"properties": {"model": "sprite", "scaleSettings": scale}})
    shown = flux("GET", "/onlineEndpoints/flux/deployments/blue").json()["properties"]

    assert shown["scaleSettings"] == scale
    assert "scale_settings has no effect on one machine: there are 2 instances" in shown["warnings"]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"scaleType": "Magic"}, "must be Default or TargetUtilization"),
        ({"minInstances": 3, "maxInstances": 2}, "min_instances and max_instances must be 1 to 50"),
        ({"minInstances": 0}, "min_instances and max_instances must be 1 to 50"),
        ({"maxInstances": 51}, "min_instances and max_instances must be 1 to 50"),
        ({"targetUtilizationPercentage": 0}, "target_utilization_percentage must be 1 to 100"),
        ({"pollingInterval": "PT0S"}, "polling_interval must be 1 to 86400 s"),
    ],
)
def test_scale_settings_that_make_no_sense_are_refused(
    flux: Callable[..., Response], scale: dict[str, Any], message: str
) -> None:
    body = {"properties": {"model": "sprite", "scaleSettings": {"scaleType": "TargetUtilization"} | scale}}

    answer = flux("PUT", "/onlineEndpoints/flux/deployments/blue", body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("duration", ["PT0.00001S", "PT0.5S", "PT12345.678S", "PT20S"])
def test_a_duration_is_shown_as_it_was_sent(arm: Callable[..., Response], duration: str) -> None:
    put_endpoint(arm)
    properties = {"model": "sprite", "requestSettings": {"maxQueueWait": duration}}

    answer = arm("PUT", "/onlineEndpoints/flux/deployments/blue", {"properties": properties})

    assert answer.json()["properties"]["requestSettings"]["maxQueueWait"] == duration
