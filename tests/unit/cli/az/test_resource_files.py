from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from safelight.cli.az.resource_files import (
    CONNECTION_FIELDS,
    DEPLOYMENT_FIELDS,
    ENDPOINT_FIELDS,
    connection_body,
    deployment_body,
    endpoint_body,
    parse_shares,
    read_resource,
)
from safelight.errors import InvalidRequest


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "resource.yml"
    path.write_text(text)
    return path


def test_an_endpoint_file_becomes_the_body_that_the_sdk_sends(tmp_path: Path) -> None:
    text = """
    $schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
    name: flux
    auth_mode: aml_token
    tags: {team: art}
    properties: {enforce_access_to_default_secret_stores: enabled}
    """

    body = endpoint_body(read_resource(_file(tmp_path, text), ENDPOINT_FIELDS))

    assert body["tags"] == {"team": "art"}
    assert body["properties"]["authMode"] == "AMLToken"
    assert body["properties"]["properties"] == {"enforce_access_to_default_secret_stores": "enabled"}


def test_a_deployment_files_milliseconds_and_seconds_become_durations(tmp_path: Path) -> None:
    text = """
    name: blue
    endpoint_name: flux
    model: azureml:mine:1
    instance_count: 2
    request_settings: {request_timeout_ms: 90000, max_concurrent_requests_per_instance: 2, max_queue_wait_ms: 500}
    liveness_probe: {initial_delay: 600, failure_threshold: 30}
    """

    body = deployment_body(read_resource(_file(tmp_path, text), DEPLOYMENT_FIELDS))

    assert body["sku"]["capacity"] == 2
    assert body["properties"]["requestSettings"] == {
        "requestTimeout": "PT90S",
        "maxQueueWait": "PT0.5S",
        "maxConcurrentRequestsPerInstance": 2,
    }
    assert body["properties"]["livenessProbe"] == {"initialDelay": "PT600S", "failureThreshold": 30}


def test_what_has_no_effect_on_an_endpoint_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "{name: flux, compute: azureml:cluster, identity: {type: user_assigned}}"

    read_resource(_file(tmp_path, text), ENDPOINT_FIELDS)

    said = capsys.readouterr().err
    assert "compute has no effect: models run on this machine" in said
    assert "identity has no effect: every endpoint acts in its own name" in said


def test_the_server_is_told_what_it_cannot_do_for_a_deployment(tmp_path: Path) -> None:
    text = "{name: blue, endpoint_name: flux, model: m, environment: azureml:env:1, scale_settings: {type: default}}"

    body = deployment_body(read_resource(_file(tmp_path, text), DEPLOYMENT_FIELDS))

    assert body["properties"]["environmentId"] == "azureml:env:1"
    assert body["properties"]["scaleSettings"] == {"scaleType": "Default"}


def test_scale_settings_are_read_in_both_of_their_types(tmp_path: Path) -> None:
    text = (
        "{name: blue, endpoint_name: flux, model: m, scale_settings: {type: target_utilization, min_instances: 2, "
        "max_instances: 5, polling_interval: 10, target_utilization_percentage: 60}}"
    )

    body = deployment_body(read_resource(_file(tmp_path, text), DEPLOYMENT_FIELDS))

    assert body["properties"]["scaleSettings"] == {
        "scaleType": "TargetUtilization",
        "minInstances": 2,
        "maxInstances": 5,
        "pollingInterval": "PT10S",
        "targetUtilizationPercentage": 60,
    }


def test_set_changes_fields_as_az_does(tmp_path: Path) -> None:
    resource = read_resource(
        _file(tmp_path, "name: flux"), ENDPOINT_FIELDS, ["properties.team=art", "tags.cost=7", "auth_mode=aml_token"]
    )

    assert resource == {"name": "flux", "properties": {"team": "art"}, "tags": {"cost": 7}, "auth_mode": "aml_token"}


def test_a_connection_in_the_sdks_form_keeps_its_one_key(tmp_path: Path) -> None:
    text = "{name: hub, type: custom, target: _, credentials: {type: api_key, key: s3cret}}"

    body = connection_body(read_resource(_file(tmp_path, text), CONNECTION_FIELDS), {})

    assert body["properties"]["credentials"] == {"keys": {"key": "s3cret"}}


@pytest.mark.parametrize(
    ("text", "shares"), [("blue=100", {"blue": 100}), ("blue=90 green=10", {"blue": 90, "green": 10})]
)
def test_traffic_is_written_as_az_has_it(text: str, shares: dict[str, int]) -> None:
    assert parse_shares(text) == shares


@pytest.mark.parametrize("text", ["blue", "blue=all", "blue=-1"])
def test_traffic_that_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="DEPLOYMENT=PERCENT"):
        parse_shares(text)


@pytest.mark.parametrize(("text", "message"), [("- a list", "mapping"), ("{", "not YAML")])
def test_a_file_that_is_no_resource_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_resource(_file(tmp_path, text), ENDPOINT_FIELDS)


def _connection(resource: dict[str, Any]) -> dict[str, Any]:
    return connection_body(resource, {})


@pytest.mark.parametrize(
    ("known", "body", "text", "message"),
    [
        (ENDPOINT_FIELDS, endpoint_body, "{name: flux, tags: [a]}", "tags must be a mapping"),
        (ENDPOINT_FIELDS, endpoint_body, "{name: flux, tags: {team: }}", "tags.team must be a text"),
        (ENDPOINT_FIELDS, endpoint_body, "{name: flux, properties: on}", "properties must be a mapping"),
        (ENDPOINT_FIELDS, endpoint_body, "{1: flux}", "unknown field '1'"),
        (DEPLOYMENT_FIELDS, deployment_body, "instance_count: two", "instance_count must be a number, not 'two'"),
        (DEPLOYMENT_FIELDS, deployment_body, "instance_count: 1.5", "must be a whole number, not 1.5"),
        (DEPLOYMENT_FIELDS, deployment_body, "instance_count: true", "instance_count must be a number, not True"),
        (DEPLOYMENT_FIELDS, deployment_body, "model: {path: ./model}", "register it with `safelight model create"),
        (DEPLOYMENT_FIELDS, deployment_body, "request_settings: 5", "request_settings must be a mapping"),
        (DEPLOYMENT_FIELDS, deployment_body, "request_settings: {request_timeout_ms: .nan}", "must be a number"),
        (DEPLOYMENT_FIELDS, deployment_body, "liveness_probe: {period: PT10S}", "liveness_probe.period must be a num"),
        (DEPLOYMENT_FIELDS, deployment_body, "environment_variables: [A=B]", "environment_variables must be a mapping"),
        (CONNECTION_FIELDS, _connection, "credentials: hf_secret", "credentials must be a mapping"),
        (CONNECTION_FIELDS, _connection, "credentials: {HF_TOKEN: hf_secret}", "unknown field 'credentials.HF_TOKEN'"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: }", "secrets.HF_TOKEN must be a text"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: {value: hf_secret}}", "secrets.HF_TOKEN must be a text"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: hf_secret: x}", "line 1, column 30: expected ',' or '}'"),
        (CONNECTION_FIELDS, _connection, 'name: hub\nsecrets: {HF_TOKEN: "hf_secret\\q"}', "line 2, column 32: found"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: *hf_secret}", "found undefined alias"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: !hf_secret x}", "constructor for the tag"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: !!int hf_secret}", "looks like a date or a number"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: !!bool hf_secret}", "looks like a date or a number"),
        (CONNECTION_FIELDS, _connection, "secrets: {HF_TOKEN: 2024-13-45}", "looks like a date or a number"),
        (DEPLOYMENT_FIELDS, deployment_body, f"instance_count: {10**400}", "instance_count must be a number"),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused_by_the_name_of_its_field(
    tmp_path: Path,
    known: Collection[str],
    body: Callable[[dict[str, Any]], dict[str, Any]],
    text: str,
    message: str,
) -> None:
    with pytest.raises(InvalidRequest, match=message) as refusal:
        body(read_resource(_file(tmp_path, text), known))

    assert "hf_secret" not in refusal.value.message


def test_a_count_that_is_left_empty_is_the_default(tmp_path: Path) -> None:
    text = "{name: blue, instance_count: , request_settings: {max_concurrent_requests_per_instance: }}"

    body = deployment_body(read_resource(_file(tmp_path, text), DEPLOYMENT_FIELDS))

    assert body["sku"]["capacity"] == 1
    assert body["properties"]["requestSettings"] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tags={", "not YAML"),
        ("tags.until=2024-13-45", "looks like a date"),
        (f"tags={'[' * 3000}", "not YAML"),
        ("description.x=1", "description must be a mapping"),
    ],
)
def test_a_set_that_cannot_be_is_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_resource(None, ENDPOINT_FIELDS, [change], start={"description": "Pictures"})


def test_set_empties_a_text() -> None:
    assert read_resource(None, ENDPOINT_FIELDS, ["description="], start={"description": "x"}) == {"description": ""}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resource.yml"
    path.write_bytes(b"name: \xff")

    with pytest.raises(InvalidRequest, match="not YAML"):
        read_resource(path, ENDPOINT_FIELDS)
