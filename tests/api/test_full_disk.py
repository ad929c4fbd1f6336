"""A disk that takes no more: who wanted something kept is told why, all others are served, and the log has one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.job_server import ASYNC, OPENAI, PROMPT, SCORE, ended
from tests.api.test_jobs import SteppedDispatcher
from tests.fakes import fake_replicas
from tests.full_disk import Trouble, no_file_grows, no_page_is_free, nothing_may_be_written
from tests.unit.picture.incoming.test_uploads import encoded, left_red
from tests.waiting import eventually

LONG = "a fox " * 5000
"""Does not fit into the pages that the database has."""
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
ENDPOINT = f"{WORKSPACE}/onlineEndpoints/flux"
DEPLOYMENT = {"properties": {"model": "azureml://registries/safelight/models/sprite/versions/1", "description": LONG}}
KEEPS = {
    "a job": ("POST", OPENAI, {"prompt": LONG}, ASYNC),
    "a job at the root": ("POST", "/", {"inputs": LONG}, ASYNC),
    "an idempotency key": ("POST", SCORE, {"inputs": LONG}, {"Idempotency-Key": "k"}),
    "a connection": ("PUT", f"{WORKSPACE}/connections/hub", {"properties": {"credentials": {"keys": {"A": LONG}}}}, {}),
    "an endpoint": ("PUT", f"{WORKSPACE}/onlineEndpoints/new", {"properties": {"description": LONG}}, {}),
    "a tag": ("PATCH", ENDPOINT, {"tags": {"a": LONG}}, {}),
    "a deployment": ("PUT", f"{ENDPOINT}/deployments/blue", DEPLOYMENT, {}),
}
CHANGES = {
    "a deletion": ("DELETE", ENDPOINT, None, {}),
    "new keys": ("POST", f"{ENDPOINT}/regenerateKeys", {"keyType": "Primary"}, {}),
    "reading keys, which is written down": ("POST", f"{ENDPOINT}/listKeys", None, {}),
}
Asked = tuple[str, str, object, dict[str, str]]


@pytest.fixture
def stepped() -> Iterator[SteppedDispatcher]:
    dispatcher = SteppedDispatcher()
    dispatcher.go_on.set()
    yield dispatcher
    dispatcher.go_on.set()


@pytest.fixture
def client(stepped: SteppedDispatcher, tmp_path: Path) -> Iterator[TestClient]:
    """Of a server with an endpoint `flux`, as its administrator."""
    settings = Settings(data_dir=tmp_path)
    online = OnlineEndpoints(settings, fake_replicas())
    with TestClient(create_app(settings, stepped, online)) as client:  # type: ignore[arg-type]
        client.headers["Authorization"] = f"Bearer {online.plane.admin_token}"
        client.put(ENDPOINT, json={"properties": {}}).raise_for_status()
        eventually(lambda: client.get(ENDPOINT).json()["properties"]["provisioningState"] == "Succeeded")
        yield client


def ask(client: TestClient, asked: Asked) -> httpx.Response:
    method, path, body, headers = asked
    return client.request(method, path, json=body, headers=headers)


def ask_settled(client: TestClient, asked: Asked) -> httpx.Response:
    """Not while the endpoint still changes, which a request for another change of it would be told."""
    eventually(lambda: client.get(ENDPOINT).json()["properties"]["provisioningState"] == "Succeeded")
    return ask(client, asked)


def cause_of(response: httpx.Response) -> str:
    """What a dialect's clients read of a refusal for the disk."""
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    error = response.json()["error"]
    if isinstance(error, str):
        return error
    assert error["code"] in ("storage_unavailable", "ServiceUnavailable")
    return str(error["message"])


@pytest.mark.parametrize(
    ("trouble", "cause", "requests"),
    [
        (no_page_is_free, "its disk is full", KEEPS),
        (no_file_grows, "its disk fails, or a limit on files or their size is reached", KEEPS | CHANGES),
        (nothing_may_be_written, "it may only be read", KEEPS | CHANGES),
    ],
)
def test_who_wants_something_kept_is_told_why_it_is_not(
    client: TestClient, stepped: SteppedDispatcher, trouble: Trouble, cause: str, requests: dict[str, Asked]
) -> None:
    with trouble() as mend:
        refusals = {name: cause_of(ask(client, asked)) for name, asked in requests.items()}
        made = list(stepped.requests)
        mend()
        statuses = {name: ask_settled(client, asked).status_code for name, asked in KEEPS.items()}

    assert {each.partition(";")[0] for each in refusals.values()} == {f"the database takes no writes: {cause}"}
    assert made == []
    assert {name: status for name, status in statuses.items() if status not in (200, 201, 202)} == {}


@pytest.mark.parametrize("trouble", [no_page_is_free, no_file_grows, nothing_may_be_written])
def test_the_log_has_one_line_however_many_are_refused_and_health_tells_until_it_is_over(
    client: TestClient, caplog: pytest.LogCaptureFixture, trouble: Trouble
) -> None:
    caplog.set_level(logging.INFO, logger="safelight")
    with trouble() as mend, ThreadPoolExecutor(4) as pool:
        asked = [*KEEPS.values()] * 5
        assert {each.status_code for each in pool.map(lambda each: ask(client, each), asked)} == {503}
        ready = client.get("/health/ready")
        refused = [each for each in caplog.records if each.levelno >= logging.WARNING]
        mend()
        client.post(OPENAI, json={"prompt": LONG}, headers=ASYNC).raise_for_status()
        healed = client.get("/health/ready")

    assert [each.getMessage().partition(":")[0] for each in refused] == ["the database takes no writes"]
    assert refused[0].exc_info is None
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert ready.json()["storage"].startswith("the database takes no writes: ")
    assert healed.json()["storage"] is None
    assert caplog.messages.count("the database takes writes again") == 1


@pytest.mark.parametrize("trouble", [no_page_is_free, no_file_grows])
def test_what_keeps_nothing_is_answered_as_ever(client: TestClient, trouble: Trouble) -> None:
    job = ended(client, client.post(SCORE, json=PROMPT, headers=ASYNC))
    with trouble():
        assert client.post(OPENAI, json={"prompt": LONG}, headers=ASYNC).status_code == 503
        statuses = {
            client.post(OPENAI, json={"prompt": LONG}).status_code,
            client.get(f"/jobs/{job['id']}").status_code,
            client.get(job["result"]).status_code,
            client.get(ENDPOINT).status_code,
            client.get("/health/live").status_code,
        }

    assert statuses == {200}


def test_a_picture_that_finds_no_room_is_refused_with_what_needs_none_and_leaves_nothing(
    client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"prompt": "a fox", "response_format": "url"}
    with no_file_grows() as mend:
        refusals = [cause_of(client.post(OPENAI, json=body)) for _ in range(3)]
        unknown = client.get("/v1/images/files/1999999999-" + "a" * 32 + ".png?signature=b")
        left = [path.name for path in (tmp_path / "images").glob("*")]
        logged = [each for each in caplog.records if each.levelno >= logging.WARNING]
        mend()
        link = client.post(OPENAI, json=body).json()["data"][0]["url"]

    assert "the store of pictures takes no writes: the limit on the size of its files is reached" in refusals[0]
    assert "response_format 'b64_json'" in refusals[0]
    assert (unknown.status_code, left, len(logged)) == (404, [], 1)
    assert client.get(link).content.startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".image-links.key*"))


def test_a_job_whose_picture_finds_no_room_is_made_when_there_is_some(
    client: TestClient, stepped: SteppedDispatcher
) -> None:
    stepped.go_on.clear()
    accepted = client.post(OPENAI, json={"prompt": "a fox", "response_format": "url"}, headers=ASYNC)
    eventually(lambda: stepped.num_running == 1)
    with no_file_grows():
        stepped.go_on.set()
        eventually(lambda: "the store of pictures" in (client.get("/health/ready").json()["storage"] or ""))
    job = ended(client, accepted)

    link = client.get(job["result"]).json()["data"][0]["url"]
    assert client.get(link).content.startswith(b"\x89PNG")


def test_a_request_whose_answer_finds_no_room_is_told_so_at_once_and_not_made_again(
    client: TestClient, stepped: SteppedDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    stepped.go_on.clear()
    headers = {"Idempotency-Key": "order-1"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, SCORE, json=PROMPT, headers=headers)
        eventually(lambda: stepped.num_running == 1)
        with no_file_grows():
            stepped.go_on.set()
            refusals = [cause_of(waiting.result(60)), cause_of(client.post(SCORE, json=PROMPT, headers=headers))]
    eventually(lambda: client.post(SCORE, json=PROMPT, headers=headers).status_code == 200)

    assert all("the database takes no writes" in each for each in refusals)
    assert len(stepped.requests) == 1
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1


def test_a_key_that_cannot_be_written_down_loses_no_secret(client: TestClient, tmp_path: Path) -> None:
    keys = {"properties": {"credentials": {"keys": {"A": "kept"}}}}
    client.put(f"{WORKSPACE}/connections/hub", json=keys).raise_for_status()
    with no_file_grows():
        refusal = cause_of(client.post(f"{WORKSPACE}/rotateEncryptionKey"))

    assert "the file of encryption keys takes no writes" in refusal
    assert not list(tmp_path.glob(".encryption-keys*"))
    shown = client.post(f"{WORKSPACE}/connections/hub/listsecrets").json()
    assert shown["properties"]["credentials"]["keys"] == {"A": "kept"}
    assert client.post(f"{WORKSPACE}/rotateEncryptionKey").status_code == 200


def test_an_upload_needs_no_disk(client: TestClient) -> None:
    image = encoded(left_red()) + bytes(3_000_000)  # more than a parser would hold in memory by itself
    with no_file_grows():
        response = client.post("/v1/images/edits", data={"prompt": "a fox"}, files={"image": image})

    assert response.status_code == 200, response.text
