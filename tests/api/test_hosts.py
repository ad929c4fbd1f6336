"""What links are made of: a forged `Host` makes none, in whichever answer, and keeps nobody from what has no links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from starlette.testclient import TestClient

from safelight.api.http.links import known_server_url
from safelight.control.store.tables import Operation, OperationKind, OperationStatus
from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.job_server import ASYNC, Connect, ended, serving_jobs
from tests.fakes import fake_replicas
from tests.live_server import live_server
from tests.unit.picture.incoming.test_uploads import encoded, left_red
from tests.waiting import eventually

GENERATIONS = "/v1/images/generations"
BY_LINK = {"prompt": "a fox", "seed": 7, "response_format": "url"}
SUBSCRIPTION = "/subscriptions/s"
WORKSPACE = f"{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
ENDPOINT, KEPT = f"{WORKSPACE}/onlineEndpoints/flux", f"{WORKSPACE}/onlineEndpoints/kept"
OPERATIONS = f"{SUBSCRIPTION}/providers/Microsoft.MachineLearningServices/locations/local"
IN_PROGRESS = OperationStatus.IN_PROGRESS
MODEL = {"properties": {"model": "azureml://registries/safelight/models/sprite/versions/1"}}
FORGED = [
    *("evil.example", "evil.example:8000", "10.0.0.1", "[2001:db8::1]:80", "[::ffff:8.8.8.8]", "0x7f.1", "127.1"),
    *("testserver.evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", "xtestserver"),
    *(
        "localhost@evil.example",
        "user@localhost",
        "localhost:80@evil.example",
        "localhost:evil.example",
        "localhost:1:1",
    ),
    *("evil.example/.localhost", "evil.example?.localhost", "evil.example#.localhost", r"evil.example\.localhost"),
    *(
        "localhost/",
        "localhost evil.example",
        "localhost,evil.example",
        "localhost%2eevil",
        "[::1",
        "[::1]evil.example",
    ),
    *("127.0.0.1:99999", "localhost:65536", "[::1]:70000"),
    *("", ".", ":80", "..localhost@x", "loc\u00e4lhost", "localhost\u00a0", "images.example.org", "example.org"),
]


@pytest.fixture
def connect(dispatcher: FakeDispatcher, tmp_path: Path) -> Iterator[Connect]:
    with serving_jobs(dispatcher, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def forged_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, FakeDispatcher]]:
    """A server that is asked by names that are not its own; it has an endpoint `kept`."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), base_domain="images.example.org")
    online, dispatcher = OnlineEndpoints(settings, fake_replicas()), FakeDispatcher()
    with TestClient(create_app(settings, dispatcher, online)) as client:  # type: ignore[arg-type]
        client.headers["Authorization"] = f"Bearer {online.plane.admin_token}"
        client.put(KEPT, json={"properties": {}}).raise_for_status()
        eventually(lambda: client.get(KEPT).json()["properties"]["provisioningState"] == "Succeeded")
        with online.plane.database.transaction() as session:
            session.add(Operation(id="going-on", kind=OperationKind.UPDATE, endpoint_name="else", status=IN_PROGRESS))
        yield client, dispatcher


def refusal_of(response: httpx.Response) -> str:
    """Why; every dialect has its own place for it."""
    assert response.status_code == 400, response.text
    assert not {"location", "azure-asyncoperation"} & response.headers.keys()
    error = response.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("host", FORGED)
def test_a_host_that_is_not_ours_makes_no_link_to_a_picture(
    forged_at: tuple[TestClient, FakeDispatcher], host: str
) -> None:
    (client, dispatcher), headers = forged_at, {"Host": host.encode("latin-1")}
    dispatcher.requests.clear()

    refusals = [
        client.post(GENERATIONS, json=BY_LINK, headers=headers),
        client.post(GENERATIONS, json=BY_LINK, headers=headers | {"Idempotency-Key": "k"}),
        client.post(GENERATIONS, json=BY_LINK, headers=headers | ASYNC),
        client.post("/openai/deployments/tiny/images/generations", json=BY_LINK, headers=headers),
        client.post(
            "/v1/images/edits",
            data={"prompt": "a fox", "response_format": "url"},
            files={"image": encoded(left_red())},
            headers=headers,
        ),
    ]

    for each in refusals:
        assert "--public-url" in refusal_of(each)
        assert "--allowed-hosts" in refusal_of(each)
        assert each.json()["error"]["param"] == "Host"
    assert dispatcher.requests == []


@pytest.mark.parametrize("host", FORGED)
def test_a_host_that_is_not_ours_is_in_nothing_that_a_job_tells(
    forged_at: tuple[TestClient, FakeDispatcher], host: str
) -> None:
    (client, dispatcher), headers = forged_at, {"Host": host.encode("latin-1")}
    dispatcher.requests.clear()
    webhook = ASYNC | {"Webhook-Url": "https://8.8.8.8/"}

    with_webhook = client.post(GENERATIONS, json={"prompt": "a fox"}, headers=headers | webhook)
    accepted = client.post(GENERATIONS, json={"prompt": "a fox"}, headers=headers | ASYNC)
    location = accepted.headers["location"]
    job = ended(client, accepted)

    assert "--public-url" in refusal_of(with_webhook)
    assert (accepted.status_code, location) == (202, f"/jobs/{job['id']}")
    assert "--public-url" in refusal_of(client.get(location, headers=headers))
    assert client.get(f"{location}/result", headers=headers).status_code == 200
    assert job["result"] == f"http://testserver{location}/result"
    assert len(dispatcher.requests) == 1


@pytest.mark.parametrize("host", FORGED)
def test_a_host_that_is_not_ours_changes_nothing_in_the_control_plane(
    forged_at: tuple[TestClient, FakeDispatcher], host: str
) -> None:
    arm, headers = forged_at[0], {"Host": host.encode("latin-1")}
    requests: list[tuple[str, str, object]] = [
        ("PUT", ENDPOINT, {"properties": {}}),
        ("PATCH", KEPT, {"tags": {"a": "b"}}),
        ("GET", KEPT, None),
        ("GET", f"{WORKSPACE}/onlineEndpoints", None),
        ("DELETE", KEPT, None),
        ("PUT", f"{KEPT}/deployments/blue", MODEL),
        ("DELETE", f"{KEPT}/deployments/blue", None),
        ("GET", f"{OPERATIONS}/mfeOperationResults/going-on", None),
        ("GET", WORKSPACE, None),
        ("GET", "/registrymanagement/v1.0/registries/azureml/discovery", None),
        ("GET", "/metadata/endpoints", None),
    ]

    for method, path, body in requests:
        response = arm.request(method, path, json=body, headers=headers)
        assert "--allowed-hosts" in refusal_of(response), path
        assert response.json()["error"]["target"] == "Host"
    going_on = arm.get(f"{OPERATIONS}/mfeOperationResults/going-on?api-version=a b")
    assert (
        going_on.headers["location"] == f"http://testserver{OPERATIONS}/mfeOperationResults/going-on?api-version=a%20b"
    )
    assert arm.get(ENDPOINT).status_code == 404
    kept = arm.get(KEPT).json()
    assert (kept["tags"], kept["properties"]["provisioningState"]) == ({}, "Succeeded")
    assert arm.get(f"{KEPT}/deployments").json()["value"] == []


@pytest.mark.parametrize("host", FORGED)
def test_what_needs_no_link_is_answered_by_any_name(forged_at: tuple[TestClient, FakeDispatcher], host: str) -> None:
    arm, headers = forged_at[0], {"Host": host.encode("latin-1")}

    for path in ("/", "/health/ready", "/v1/models", "/metrics", f"{WORKSPACE}/connections", f"{WORKSPACE}/models"):
        assert arm.get(path, headers=headers).status_code == 200, path
    assert arm.post(GENERATIONS, json={"prompt": "a fox"}, headers=headers).status_code == 200
    assert arm.post("/score", json={"inputs": "a fox"}, headers=headers | {"Idempotency-Key": "k"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("testserver", {}),  # where the connection came in
        ("localhost", {}),
        ("LOCALHOST.:8000", {}),
        ("127.0.0.1:18000", {}),
        ("127.8.9.1", {}),
        ("[::1]:8000", {}),
        ("[::ffff:127.0.0.1]", {}),
        ("images.example.org:443", {"allowed_hosts": "other.example.org, IMAGES.example.org"}),
        ("[2001:DB8:0::1]", {"allowed_hosts": "2001:db8::1"}),
        ("10.0.0.7:8000", {"allowed_hosts": ["10.0.0.7"]}),
        ("gpu-box:8000", {"host": "gpu-box", "api_key": "k"}),
    ],
)
def test_our_own_names_make_links_as_the_client_wrote_them(
    connect: Connect, host: str, settings: dict[str, Any]
) -> None:
    client = connect(**settings)

    answer = client.post(GENERATIONS, json=BY_LINK, headers={"Host": host}).json()
    job = ended(client, client.post("/v1/images/generations", json=BY_LINK, headers=ASYNC | {"Host": host}))
    told = client.get(f"/jobs/{job['id']}", headers={"Host": host}).json()
    of_job = client.get(f"/jobs/{job['id']}/result").json()

    assert answer["data"][0]["url"].startswith(f"http://{host}/v1/images/files/")
    assert told["result"] == f"http://{host}/jobs/{job['id']}/result"
    assert of_job["data"][0]["url"].startswith(f"http://{host}/v1/images/files/")


@pytest.mark.parametrize("host", ["evil.example", "localhost", ""])
def test_the_public_address_wins_over_every_host(connect: Connect, host: str) -> None:
    client = connect(public_url="https://images.example.org/pictures/")
    headers = {"Host": host}

    answer = client.post(GENERATIONS, json=BY_LINK, headers=headers).json()
    accepted = client.post(GENERATIONS, json=BY_LINK, headers=headers | ASYNC)

    assert answer["data"][0]["url"].startswith("https://images.example.org/pictures/v1/images/files/")
    assert accepted.headers["location"].startswith("https://images.example.org/pictures/jobs/")


def asked(settings: Settings, server: tuple[str, int] | None, *hosts: str) -> str | None:
    headers = [(b"host", each.encode()) for each in hosts]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "server": server}
    return known_server_url(Request(scope), settings)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        (("192.0.2.7", 8000), "192.0.2.7:8000"),
        (("::ffff:192.0.2.7", 8000), "192.0.2.7"),
        (("2001:db8::7", 8000), "[2001:DB8::0:7]:8000"),
        (("fe80::7%eth0", 8000), "[fe80::7]:8000"),
    ],
)
def test_the_address_that_the_connection_came_in_on_is_ours(server: tuple[str, int], host: str) -> None:
    settings = Settings(host="0.0.0.0", api_key="k")

    assert asked(settings, server, host) == f"http://{host}"
    assert asked(settings, ("192.0.2.8", 8000), host) is None
    assert asked(settings, None, host) is None


def test_the_name_of_an_endpoint_is_ours() -> None:
    settings = Settings(base_domain="Images.example.org")

    assert asked(settings, None, "flux.images.EXAMPLE.org:8000") == "http://flux.images.EXAMPLE.org:8000"
    assert asked(settings, None, "flux.localhost") == "http://flux.localhost"


def test_a_name_below_the_endpoints_own_or_without_one_is_not_ours() -> None:
    settings = Settings(base_domain="images.example.org")

    hosts = ("a.b.images.example.org", ".images.example.org", "images.example.org", "flux.images.example.org.evil")
    assert {asked(settings, None, each) for each in hosts} == {None}
    assert asked(Settings(base_domain=""), None, "flux.") is None


def test_two_hosts_are_none() -> None:
    assert asked(Settings(), ("127.0.0.1", 80), "localhost", "localhost") is None
    assert asked(Settings(), ("127.0.0.1", 80)) is None


def test_over_tls_links_are_too() -> None:
    assert asked(Settings(tls=True), ("127.0.0.1", 80), "localhost") == "https://localhost"


def test_forwarded_headers_that_anyone_may_write_make_no_links(tmp_path: Path) -> None:
    forged = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Server": "evil.example",
        "X-Original-Host": "evil.example",
        "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
    }
    with live_server(data_dir=tmp_path) as server:
        answer = httpx.post(f"{server.url}{GENERATIONS}", json=BY_LINK, headers=forged).json()

    assert answer["data"][0]["url"].startswith(f"{server.url}/v1/images/files/")
