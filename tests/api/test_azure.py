from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from httpx import Response
from sqlalchemy import text
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.control_plane import WORKSPACE, put_endpoint
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import fake_replicas


def test_a_patch_of_a_connection_keeps_what_it_does_not_name(arm: Callable[..., Response]) -> None:
    keys = {"HF_TOKEN": "hf_old", "OTHER": "kept"}
    arm("PUT", "/connections/hub", {"properties": {"metadata": {"team": "art"}, "credentials": {"keys": keys}}})

    body = {"properties": {"authType": "CustomKeys", "target": "t", "credentials": {"keys": {"HF_TOKEN": "hf_new"}}}}
    answer = arm("PATCH", "/connections/hub", body)

    assert answer.status_code == 200
    assert "hf_new" not in answer.text
    assert answer.json()["properties"]["metadata"] == {"team": "art"}
    assert answer.json()["properties"]["target"] == "t"
    newest, *_ = arm("GET", "/secretReads").json()["value"]
    assert (newest["reader"], newest["connection"]) == ("administrator, to change it", "hub")
    secrets = arm("POST", "/connections/hub/listsecrets").json()["properties"]["credentials"]["keys"]
    assert secrets == {"HF_TOKEN": "hf_new", "OTHER": "kept"}


@pytest.mark.parametrize(
    ("name", "properties", "status", "message"),
    [
        ("nothing", {}, 404, "no connection 'nothing'"),
        ("hub", {"category": "Git"}, 400, "category of connection 'hub' is CustomKeys and cannot be changed"),
        ("hub", {"credentials": {"keys": {"HF_TOKEN": " "}}}, 400, "secret 'HF_TOKEN' of connection 'hub' is empty"),
    ],
)
def test_a_patch_of_a_connection_that_cannot_be_says_why(
    arm: Callable[..., Response], name: str, properties: dict[str, object], status: int, message: str
) -> None:
    arm("PUT", "/connections/hub", {"properties": {"credentials": {"keys": {"HF_TOKEN": "hf_old"}}}})

    answer = arm("PATCH", f"/connections/{name}", {"properties": properties})

    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True)


def test_access_to_secrets_cannot_be_added_to_an_endpoint(arm: Callable[..., Response]) -> None:
    body = {"properties": {"authMode": "Key"}}
    put_endpoint(arm, body)

    answer = arm(
        "PUT",
        "/onlineEndpoints/flux",
        {"properties": {"authMode": "Key", "properties": {"enforce_access_to_default_secret_stores": "enabled"}}},
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == "properties.enforce_access_to_default_secret_stores"
    assert "create a new endpoint" in answer.json()["error"]["message"]


@pytest.mark.parametrize("credentials", ["hf_secret", {"keys": "hf_secret"}, {"keys": {"HF_TOKEN": ["hf_secret"]}}])
def test_a_secret_of_the_wrong_type_is_refused_without_being_repeated(
    arm: Callable[..., Response], credentials: object
) -> None:
    answer = arm("PUT", "/connections/hub", {"properties": {"credentials": credentials}})

    assert answer.status_code == 400
    assert "properties.credentials" in answer.text
    assert "hf_secret" not in answer.text


def test_a_connection_with_one_key_takes_no_secrets_by_name(arm: Callable[..., Response]) -> None:
    properties = {"authType": "ApiKey", "credentials": {"keys": {"HF_TOKEN": "hf_secret"}}}

    refused = arm("PUT", "/connections/hub", {"properties": properties})
    arm("PUT", "/connections/hub", {"properties": {"authType": "ApiKey", "credentials": {"key": "hf_secret"}}})
    shown = arm("POST", "/connections/hub/listsecrets")

    assert refused.status_code == 400
    assert "use authType CustomKeys" in refused.text
    assert shown.json()["properties"]["credentials"] == {"key": "hf_secret"}


@pytest.mark.parametrize("value", ["short", "with a space", "schlüssel", "two\nlines"])
def test_a_key_that_fits_into_no_header_is_refused(arm: Callable[..., Response], value: str) -> None:
    own = {"properties": {"keys": {"primaryKey": value}}}
    put_endpoint(arm)

    assert arm("PUT", "/onlineEndpoints/other", own).status_code == 400
    refused = arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary", "keyValue": value})
    assert refused.status_code == 400
    assert "8 to 512" in refused.text
    assert value not in refused.text


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/onlineEndpoints/flux", {"tags": {"team": "a\0b"}}, "tags.team"),
        ("/onlineEndpoints/flux", {"properties": {"description": "a\0b"}}, "properties.description"),
        ("/onlineEndpoints/flux", {"properties": {"properties": {"a\0b": "c"}}}, "properties.properties.a\\0b"),
        ("/onlineEndpoints/fl%00ux", {}, "name"),
        ("/models/mi%00ne/versions/1", {"properties": {"modelUri": "org/name"}}, "name"),
        ("/connections/hub", {"properties": {"credentials": {"keys": {"K": "\0x"}}}}, "properties.credentials.keys.K"),
    ],
)
def test_a_nul_character_is_refused_by_its_field(
    arm: Callable[..., Response], path: str, body: dict[str, object], field: str
) -> None:
    answer = arm("PUT", path, body)

    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == field
    assert answer.json()["error"]["message"] == f"{field} has a NUL character; leave it out"


def test_what_is_asked_for_by_a_name_with_a_nul_character_is_refused_too(arm: Callable[..., Response]) -> None:
    assert arm("GET", "/onlineEndpoints/fl%00ux").json()["error"]["target"] == "name"
    assert arm("GET", "/connections/h%00b").status_code == 400


def test_an_instance_count_of_zero_is_refused(arm: Callable[..., Response]) -> None:
    put_endpoint(arm)

    answer = arm(
        "PUT", "/onlineEndpoints/flux/deployments/blue", {"sku": {"capacity": 0}, "properties": {"model": "sprite"}}
    )

    assert answer.status_code == 400
    assert "instance_count must be 1 to 50, not 0" in answer.text


@pytest.mark.parametrize("duration", ["PT1.2.3S", "PT.S", "90", "PT", "PT٣S", "PT" + "0" * 100_000 + "1S"])
def test_a_duration_that_is_none_is_refused(arm: Callable[..., Response], duration: str) -> None:
    put_endpoint(arm)
    properties = {"model": "sprite", "requestSettings": {"requestTimeout": duration}}

    answer = arm("PUT", "/onlineEndpoints/flux/deployments/blue", {"properties": properties})

    assert answer.status_code == 400
    assert "is not an ISO 8601 duration such as PT90S" in answer.text


BEYOND = 10**400
"""More than any number of a machine."""
LONG = f"PT{'9' * 400}S"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("deployments/blue", {"properties": {"livenessProbe": {"failureThreshold": BEYOND}}}),
        ("deployments/blue", {"properties": {"readinessProbe": {"initialDelay": LONG}}}),
        ("deployments/blue", {"properties": {"requestSettings": {"maxQueueWait": LONG}}}),
        ("deployments/blue", {"properties": {"requestSettings": {"maxConcurrentRequestsPerInstance": BEYOND}}}),
        ("deployments/blue", {"sku": {"capacity": BEYOND}, "properties": {}}),
        ("deployments/blue", {"location": "x" * 1000, "properties": {}}),
        ("deployments/blue", {"properties": {"model": "x" * 5000}}),
        ("", {"location": "x" * 1000, "properties": {}}),
        ("", {"properties": {"publicNetworkAccess": "sometimes"}}),
        ("", {"properties": {"traffic": {"blue": BEYOND}}}),
    ],
)
def test_a_value_out_of_all_bounds_is_refused_and_harms_no_listing(
    arm: Callable[..., Response], path: str, body: dict[str, dict[str, object]]
) -> None:
    put_endpoint(arm)
    if path:
        body["properties"].setdefault("model", "sprite")

    answer = arm("PUT", f"/onlineEndpoints/flux/{path}".rstrip("/"), body)

    assert answer.status_code == 400
    assert answer.json()["error"]["target"]
    assert len(arm("GET", "/onlineEndpoints").json()["value"]) == 1
    assert arm("GET", "/onlineEndpoints/flux/deployments").json()["value"] == []


def test_what_fits_into_no_column_of_postgresql_is_refused_by_its_field(
    arm: Callable[..., Response],
) -> None:
    category = {"category": "x" * 1000, "credentials": {"keys": {"KEY": "value"}}}
    model = {"modelUri": "org/name"}

    assert arm("PUT", "/connections/hub", {"properties": category}).json()["error"]["target"] == "category"
    for version in ("9" * 100, "a:b", "ä"):
        answer = arm("PUT", f"/models/mine/versions/{version}", {"properties": model})
        assert (answer.status_code, answer.json()["error"]["target"]) == (400, "version")


def test_more_lines_of_a_log_than_there_can_be_are_refused(arm: Callable[..., Response]) -> None:
    path = "/onlineEndpoints/flux/deployments/blue/getLogs"

    assert "less than or equal to" in arm("POST", path, {"tail": 10**30}).json()["error"]["message"]


def test_every_answer_is_one_that_the_reference_names(arm: Callable[..., Response]) -> None:
    calls = [
        ("GET", "", 200),
        ("POST", "/rotateEncryptionKey", 200),
        ("GET", "/connections/nothing", 404),
        ("DELETE", "/connections/nothing", 204),
        ("PUT", "/connections/hub", 400),
        ("PUT", "/onlineEndpoints/-", 400),
        ("GET", "/onlineEndpoints/nothing/deployments", 404),
        ("DELETE", "/onlineEndpoints/nothing", 204),
        ("POST", "/onlineEndpoints/nothing/listKeys", 404),
        ("DELETE", "/onlineEndpoints/nothing/deployments/blue", 404),
        ("PUT", "/models/mine/versions/1", 400),
        ("GET", "/models/mine/versions/1", 404),
    ]

    assert [(method, path, arm(method, path, {}).status_code) for method, path, _ in calls] == calls


def test_an_error_that_no_one_foresaw_is_still_arms_json(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    online = OnlineEndpoints(settings, fake_replicas())
    app = create_app(settings, FakeDispatcher(), online)  # type: ignore[arg-type]
    with online.plane.database.transaction() as session:
        session.execute(text("DROP TABLE connections"))

    with TestClient(app, raise_server_exceptions=False) as client:
        headers = {"Authorization": f"Bearer {online.plane.admin_token}"}
        response = client.get(f"{WORKSPACE}/connections", headers=headers)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "InternalServerError"
    assert "DROP" not in response.text
    assert "sqlite" not in response.text


UNKNOWN = [
    "/subscriptions",
    "/subscriptions/s/nothing",
    "/SUBSCRIPTIONS/s/nothing",
    f"{WORKSPACE}/nothing",
    "/mferp/nothing",
    "/registrymanagement/nothing",
    "/metadata",
    "/metadata/nothing",
    "/metadata/endpoints%3F",
    "/metadata/endpoints/nothing",
]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_only_the_administrator_is_told_which_paths_there_are(
    online: OnlineEndpoints, stranger: TestClient, method: str, path: str
) -> None:
    administrator = {"Authorization": f"Bearer {online.plane.admin_token}"}

    assert stranger.request(method, path).status_code == 401
    assert stranger.request(method, path, headers={"Authorization": "Bearer x"}).status_code == 401
    assert stranger.request(method, path, headers=administrator).status_code == 404


@pytest.mark.parametrize("path", ["/endpoints/{}/score", "/endpoints/{}", "/endpoints/{}/nothing", "/endpoints/{}%3Fa"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Prefer": "respond-async"}])
def test_a_stranger_cannot_tell_which_endpoints_there_are(
    arm: Callable[..., Response], stranger: TestClient, path: str, headers: dict[str, str]
) -> None:
    put_endpoint(arm)

    known = stranger.post(path.format("flux"), json={"inputs": "a"}, headers=headers)
    unknown = stranger.post(path.format("none"), json={"inputs": "a"}, headers=headers)

    assert (known.status_code, unknown.status_code) == (401, 401)
    assert known.text.replace("flux", "none") == unknown.text
