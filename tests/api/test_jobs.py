"""`Prefer: respond-async` and `Idempotency-Key`: what a client sees of jobs, on every dialect."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update
from starlette.testclient import TestClient

from safelight.control.store.database import open_database
from safelight.control.store.tables import Job
from safelight.errors import EngineFailure, Overloaded
from safelight.picture.generation import Event, GenerationRequest
from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.job_server import ASYNC, OPENAI, PROMPT, SCORE, Connect, bearer, ended, serving_jobs
from tests.fakes import fake_replicas
from tests.unit.picture.incoming.test_uploads import encoded, left_red
from tests.waiting import eventually

IMAGE = encoded(left_red())
REQUESTS: dict[str, dict[str, Any]] = {
    OPENAI: {"json": {"prompt": "a fox", "seed": 7, "n": 2, "output_format": "webp"}},
    "/openai/deployments/tiny/images/generations": {"json": {"prompt": "a fox", "seed": 7}},
    "/v1/images/edits": {"data": {"prompt": "a fox", "seed": "7"}, "files": {"image": IMAGE}},
    "/v1/images/variations": {"data": {"seed": "7"}, "files": {"image": IMAGE}},
    "/": {"json": PROMPT, "headers": {"Accept": "image/jpeg"}},
    "/predict": {"json": PROMPT},
    SCORE: {"json": PROMPT},
    "/score?seed=3": {"json": {"inputs": "a fox"}},
}


@dataclass
class SteppedDispatcher(FakeDispatcher):
    """Waits between the first steps and the last one until it is told to go on."""

    go_on: threading.Event = field(default_factory=threading.Event)
    num_running: int = 0
    num_left: int = 0

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.num_running += 1
        try:
            async for event in super()._stream(request):
                yield event
                if getattr(event, "index", None) == 3 and type(event).__name__ == "Step":
                    while not self.go_on.is_set():  # noqa: ASYNC110  set by the test's thread
                        await asyncio.sleep(0.001)
        except (asyncio.CancelledError, GeneratorExit):
            self.num_left += 1
            raise
        finally:
            self.num_running -= 1


@pytest.fixture
def stepped() -> Iterator[SteppedDispatcher]:
    dispatcher = SteppedDispatcher()
    yield dispatcher
    dispatcher.go_on.set()


@pytest.fixture
def connect(dispatcher: FakeDispatcher, tmp_path: Path) -> Iterator[Connect]:
    with serving_jobs(dispatcher, tmp_path) as start:
        yield start


def told(response: httpx.Response) -> list[tuple[str, str]]:
    """Its header fields, but for the name of the request."""
    return sorted((name, value) for name, value in response.headers.multi_items() if name != "x-request-id")


@pytest.mark.parametrize("path", REQUESTS)
def test_the_result_is_the_answer_that_the_request_would_have_had(connect: Connect, path: str) -> None:
    client, request = connect(), dict(REQUESTS[path])
    headers = request.pop("headers", {})
    answer = client.post(path, headers=headers, **request)

    accepted = client.post(path, headers=headers | ASYNC, **request)
    job = ended(client, accepted)
    result = client.get(job["result"])

    assert accepted.headers["preference-applied"] == "respond-async"
    assert accepted.headers["location"].startswith("/jobs/")
    assert (answer.status_code, job["state"]) == (200, "succeeded")
    assert result.status_code == 200
    assert without_time(result.content) == without_time(answer.content)
    assert told(result) == told(answer)


def without_time(content: bytes) -> bytes:
    """OpenAI's answers say at which second they were made."""
    start = content.find(b'"created":')
    return content if start < 0 else content[:start] + content[start + len(b'"created":1234567890') :]


def test_what_ends_the_work_is_the_result_in_the_dialects_words(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect()
    dispatcher.error = EngineFailure("step 2 made NaN")

    job = ended(client, client.post(OPENAI, json={"prompt": "a fox"}, headers=ASYNC))
    result = client.get(job["result"])

    assert job["state"] == "failed"
    assert result.status_code == 500
    assert result.json()["error"] == {
        "message": "step 2 made NaN",
        "type": "server_error",
        "param": None,
        "code": "engine_failure",
    }


@pytest.mark.parametrize(
    ("path", "request_", "status", "word"),
    [
        (OPENAI, {"json": {"prompt": "a fox", "size": "65x64"}}, 400, "width 65"),
        (OPENAI, {"json": {"prompt": "a fox", "model": "dall-e-3"}}, 404, "dall-e-3"),
        (OPENAI, {"json": {"prompt": "a fox", "stream": True}}, 400, "stream"),
        (SCORE, {"json": {"inputs": "a fox"}, "headers": {"Accept": "text/event-stream"}}, 400, "stream"),
        (SCORE, {"json": {"inputs": "a fox"}, "headers": {"Accept": "audio/ogg"}}, 406, "audio/ogg"),
        (SCORE, {"content": b"{"}, 400, "the body is not JSON"),
        ("/v1/images/nothing", {"json": {}}, 404, "Invalid URL"),
    ],
)
def test_a_wrong_request_is_refused_at_once_and_nothing_is_kept(
    connect: Connect, path: str, request_: dict[str, Any], status: int, word: str
) -> None:
    client = connect(max_jobs_per_key=1)
    request = dict(request_)
    headers = request.pop("headers", {}) | ASYNC

    response = client.post(path, headers=headers, **request)

    assert response.status_code == status
    assert word in response.json()["error"]["message"]
    assert client.post(SCORE, json=PROMPT, headers=ASYNC).status_code == 202


def test_a_running_job_tells_its_steps_and_shows_a_preview(connect: Connect, stepped: SteppedDispatcher) -> None:
    client = connect(stepped)
    accepted = client.post(OPENAI, json={"prompt": "a fox", "n": 2, "output_format": "webp"}, headers=ASYNC)
    url = accepted.headers["location"]

    eventually(lambda: client.get(url).json()["step"] == 2)
    job = client.get(url)
    preview = client.get(job.json()["preview"])
    result = client.get(f"{url}/result")
    stepped.go_on.set()
    done = ended(client, accepted)

    assert (job.json()["state"], job.json()["steps"], job.json()["result"]) == ("running", 4, None)
    assert job.headers["retry-after"] == "1"
    assert (preview.headers["content-type"], preview.content[8:12]) == ("image/webp", b"WEBP")
    assert result.status_code == 409
    assert done["preview"] is None
    assert client.get(f"{url}/preview").status_code == 404


def test_jobs_wait_in_line_and_owners_take_turns(connect: Connect, stepped: SteppedDispatcher) -> None:
    client = connect(stepped, max_running_jobs=1)
    first = client.post(SCORE, json=PROMPT, headers=ASYNC)
    eventually(lambda: client.get(first.headers["location"]).json()["state"] == "running")

    waiting = [client.post(SCORE, json=PROMPT, headers=ASYNC) for _ in range(2)]

    assert [response.json()["position"] for response in waiting] == [1, 2]
    assert 'safelight_jobs{state="queued"} 2.0' in client.get("/metrics").text
    stepped.go_on.set()
    assert [ended(client, response)["position"] for response in (first, *waiting)] == [None] * 3
    assert 'safelight_jobs_ended_total{state="succeeded"} 3.0' in client.get("/metrics").text


def test_delete_stops_the_work_of_a_running_job(connect: Connect, stepped: SteppedDispatcher) -> None:
    client = connect(stepped)
    url = client.post(SCORE, json=PROMPT, headers=ASYNC).headers["location"]
    eventually(lambda: client.get(url).json()["step"] is not None)

    canceled = client.delete(url)
    eventually(lambda: stepped.num_running == 0)

    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert stepped.num_left == 1
    assert client.get(url).json()["state"] == "canceled"
    assert client.get(f"{url}/result").status_code == 409
    assert (client.delete(url).status_code, client.get(url).status_code) == (204, 404)


def test_a_job_that_is_canceled_while_it_waits_never_runs(connect: Connect, stepped: SteppedDispatcher) -> None:
    client = connect(stepped, max_running_jobs=1)
    first = client.post(SCORE, json=PROMPT, headers=ASYNC)
    second = client.post(SCORE, json=PROMPT, headers=ASYNC)

    client.delete(second.headers["location"])
    stepped.go_on.set()
    ended(client, first)
    third = ended(client, client.post(SCORE, json=PROMPT, headers=ASYNC))

    assert third["state"] == "succeeded"
    assert len(stepped.requests) == 2


def test_wait_answers_at_once_if_it_does_not_take_long(connect: Connect, stepped: SteppedDispatcher) -> None:
    client = connect(stepped)

    slow = client.post(SCORE, json=PROMPT, headers={"Prefer": "respond-async, wait=0.01"})
    stepped.go_on.set()
    fast = client.post(SCORE, json=PROMPT, headers={"Prefer": "respond-async; wait=60", "prefer": "wait=60"})
    patient = client.post(SCORE, json=PROMPT, headers={"Prefer": "Respond-Async , Wait=60"})

    assert (slow.status_code, fast.status_code, patient.status_code) == (202, 200, 200)
    assert base64.b64decode(patient.json()).startswith(b"\x89PNG")


def test_a_job_is_taken_while_the_queue_of_those_who_wait_is_full(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect()
    dispatcher.error = Overloaded("all is taken")

    waiting, job = client.post(SCORE, json=PROMPT), client.post(SCORE, json=PROMPT, headers=ASYNC)

    assert (waiting.status_code, job.status_code) == (429, 202)
    dispatcher.error = None
    assert ended(client, job)["state"] == "succeeded"


def test_without_the_preference_nothing_changes(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect()

    response = client.post(SCORE, json=PROMPT, headers={"Prefer": "return=minimal"})

    assert response.status_code == 200
    assert "preference-applied" not in response.headers
    assert "safelight_jobs_ended_total" in client.get("/metrics").text
    assert 'safelight_jobs_ended_total{state="succeeded"} 0.0' in client.get("/metrics").text


def test_the_same_key_and_body_are_the_same_job(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect()
    headers = ASYNC | {"Idempotency-Key": "order-1"}

    first = client.post(SCORE, json=PROMPT, headers=headers)
    again = client.post(SCORE, json=PROMPT, headers=headers)
    ended(client, first)

    assert again.headers["location"] == first.headers["location"]
    assert client.post(SCORE, json=PROMPT, headers=headers).json()["state"] == "succeeded"
    assert len(dispatcher.requests) == 1


def test_the_same_key_and_another_body_are_refused_naming_the_header(connect: Connect) -> None:
    client = connect()
    headers = {"Idempotency-Key": "order-1"}
    client.post(OPENAI, json={"prompt": "a fox"}, headers=headers)

    refused = client.post(OPENAI, json={"prompt": "a dog"}, headers=headers)

    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert "Idempotency-Key" in refused.json()["error"]["message"]


def test_a_retry_that_comes_while_the_first_is_worked_on_waits_for_the_same_answer(
    connect: Connect, stepped: SteppedDispatcher
) -> None:
    client, headers = connect(stepped), {"Idempotency-Key": "order-1"}

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(client.post, SCORE, json={"inputs": "a fox"}, headers=headers) for _ in range(2)]
        eventually(lambda: stepped.num_running == 1)
        stepped.go_on.set()
        first, second = (answer.result() for answer in answers)

    assert (first.status_code, first.content) == (200, second.content)
    assert len(stepped.requests) == 1


def test_a_synchronous_request_that_takes_too_long_says_how_to_come_back(
    connect: Connect, stepped: SteppedDispatcher
) -> None:
    client, headers = connect(stepped, request_timeout_s=0.2), {"Idempotency-Key": "order-1"}

    response = client.post(SCORE, json=PROMPT, headers=headers)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "same Idempotency-Key" in response.json()["error"]["message"]


def test_the_timeout_of_requests_does_not_end_a_job(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect(request_timeout_s=2.0)

    client.post(SCORE, json=PROMPT)
    ended(client, client.post(SCORE, json=PROMPT, headers=ASYNC))

    assert [request.timeout_s > 3600 for request in dispatcher.requests] == [False, True]


def test_a_form_that_is_sent_again_with_another_boundary_is_the_same(
    connect: Connect, dispatcher: FakeDispatcher
) -> None:
    client, headers = connect(), {"Idempotency-Key": "order-1"}
    request: dict[str, Any] = {"data": {"prompt": "a fox"}, "files": {"image": IMAGE}}

    first = client.post("/v1/images/edits", headers=headers, **request)
    again = client.post("/v1/images/edits", headers=headers, **request)

    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert again.content == first.content
    assert len(dispatcher.requests) == 1


def test_a_synchronous_retry_gets_the_same_answer_and_is_not_made_twice(
    connect: Connect, dispatcher: FakeDispatcher
) -> None:
    client, headers = connect(), {"Idempotency-Key": "order-1"}

    first = client.post(SCORE, json={"inputs": "a fox"}, headers=headers)
    again = client.post(SCORE, json={"inputs": "a fox"}, headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["x-safelight-seed"] == first.headers["x-safelight-seed"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(dispatcher.requests) == 1


def test_a_refused_request_does_not_use_its_key_up(connect: Connect) -> None:
    client, headers = connect(), {"Idempotency-Key": "order-1"}

    refused = client.post(SCORE, json={"inputs": "a fox", "parameters": {"width": 65}}, headers=headers)

    assert refused.status_code == 400
    assert client.post(SCORE, json=PROMPT, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
def test_a_key_that_is_none_is_refused(connect: Connect, key: str) -> None:
    response = connect().post(OPENAI, json={"prompt": "a fox"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))])

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize("name", ["Idempotency-Key", "Webhook-Url"])
def test_a_header_that_is_sent_twice_is_refused(connect: Connect, dispatcher: FakeDispatcher, name: str) -> None:
    headers = [("Prefer", "respond-async"), (name, "https://8.8.8.8/1"), (name, "https://8.8.8.8/2")]

    response = connect().post(OPENAI, json={"prompt": "a fox"}, headers=headers)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == name
    assert "2 times" in response.json()["error"]["message"]
    assert not dispatcher.requests


@pytest.mark.parametrize("header", ["Idempotency-Key", "Webhook-Url"])
def test_without_a_database_what_only_a_job_can_do_is_refused(
    client: TestClient, dispatcher: FakeDispatcher, header: str
) -> None:
    refused = client.post(OPENAI, json={"prompt": "a fox"}, headers=ASYNC | {header: "http://example.com/"})

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == header
    assert "--no-online-endpoints" in refused.json()["error"]["message"]
    assert client.post(SCORE, json=PROMPT, headers={header: "http://example.com/"}).status_code == 400
    assert not dispatcher.requests


def test_without_a_database_the_preference_is_ignored(client: TestClient) -> None:
    response = client.post(SCORE, json=PROMPT, headers=ASYNC)

    assert response.status_code == 200
    assert "preference-applied" not in response.headers


def test_jobs_are_listed_to_their_own_key_alone_the_newest_first(connect: Connect, tmp_path: Path) -> None:
    client = connect(api_key="k")
    prompts = ("a fox", "a car", "a cup")
    jobs = [ended(client, client.post(OPENAI, json={"prompt": each}, headers=ASYNC)) for each in prompts]
    database = open_database(None, tmp_path)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == jobs[1]["id"]).values(owner="another"))
    database.close()

    listed = client.get("/jobs")

    assert listed.json() == {"jobs": [jobs[2], jobs[0]]}
    assert listed.headers["cache-control"] == "no-store"
    assert client.get("/jobs", headers={"Authorization": ""}).status_code == 401


def test_a_job_in_a_state_that_only_a_newer_version_knows_is_503_until_one_is_asked(
    connect: Connect, tmp_path: Path
) -> None:
    client = connect()
    accepted = client.post(OPENAI, json={"prompt": "a fox"}, headers=ASYNC)
    ended(client, accepted)
    database = open_database(None, tmp_path)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'paused'"))
    database.close()

    for path in (accepted.headers["location"], "/jobs"):
        refused = client.get(path)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert "is paused, as a newer version of Safelight says" in refused.json()["error"]["message"]


def test_a_job_needs_the_key_and_is_told_to_nobody_without(connect: Connect) -> None:
    client = connect(api_key="k")
    url = client.post(SCORE, json=PROMPT, headers=ASYNC).headers["location"]

    assert client.post(SCORE, json=PROMPT, headers=ASYNC | bearer("wrong")).status_code == 401
    for path in (url, f"{url}/result", f"{url}/preview", "/webhook-secret"):
        assert client.get(path, headers=bearer("wrong")).status_code == 401
    assert client.delete(url, headers=bearer("wrong")).status_code == 401
    assert client.get(url).status_code == 200
    assert client.get(f"{url}x").json()["error"]["code"] == "not_found"


def test_a_job_that_took_the_server_down_three_times_is_not_tried_again(
    stepped: SteppedDispatcher, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)

    def start() -> TestClient:
        return TestClient(create_app(settings, stepped, OnlineEndpoints(settings, fake_replicas())))  # type: ignore[arg-type]

    with start() as client:
        accepted = client.post(OPENAI, json={"prompt": "a fox"}, headers=ASYNC)
        eventually(lambda: client.get(accepted.headers["location"]).json()["step"] is not None)
    database = open_database(None, tmp_path)
    with database.transaction() as session:
        session.execute(update(Job).values(num_lost=3))
    database.close()
    with start() as client:
        job = ended(client, accepted)
        result = client.get(job["result"])

    assert (job["state"], result.status_code) == ("failed", 500)
    assert "3 times" in result.json()["error"]["message"]
    assert stepped.requests == []


def test_nothing_of_a_credential_is_written_down(connect: Connect, tmp_path: Path) -> None:
    client = connect(api_key="k-of-the-server-0123456789")
    headers = ASYNC | bearer("k-of-the-server-0123456789") | {"Cookie": "c=secret-cookie"}
    hook = {"Webhook-Url": "https://8.8.8.8/hook-secret-path"}

    response = client.post(SCORE, json=PROMPT, headers=headers | hook)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert response.status_code == 202
    assert any(b"a fox" in content for content in files)
    for secret in (b"k-of-the-server", b"secret-cookie", b"hook-secret-path"):
        assert not any(secret in content for content in files)


def test_one_job_more_than_a_key_may_have_is_429(connect: Connect) -> None:
    client = connect(max_jobs_per_key=2)
    first = client.post(SCORE, json=PROMPT, headers=ASYNC)
    ended(client, first)
    client.post(SCORE, json=PROMPT, headers=ASYNC)

    refused = client.post(SCORE, json=PROMPT, headers=ASYNC)
    client.delete(first.headers["location"])

    assert refused.status_code == 429
    assert "DELETE" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "60"
    assert client.post(SCORE, json=PROMPT, headers=ASYNC).status_code == 202


def test_bodies_and_results_are_kept_up_to_a_limit(connect: Connect) -> None:
    client = connect(max_job_bytes_per_key=10_000)

    ended(client, client.post(SCORE, json=PROMPT, headers=ASYNC))
    refused = client.post(SCORE, json=PROMPT, headers=ASYNC)

    assert refused.status_code == 429
    assert "10000" in refused.json()["error"]["message"]


def test_a_body_that_is_too_large_is_413(connect: Connect) -> None:
    client = connect(max_body_bytes=1024, max_upload_bytes=4096)

    for size in (2000, 5000):
        assert client.post(SCORE, json={"inputs": "x " * size}, headers=ASYNC).status_code == 413


def test_a_job_and_its_result_are_forgotten_after_a_time(connect: Connect) -> None:
    client = connect(job_lifetime_s=0.01)
    headers = ASYNC | {"Idempotency-Key": "order-1"}
    url = client.post(SCORE, json=PROMPT, headers=headers).headers["location"]

    eventually(lambda: client.get(url).status_code == 404)

    assert "kept for a time" in client.get(f"{url}/result").json()["error"]["message"]
    assert client.post(SCORE, json=PROMPT, headers=headers).headers["location"] != url


def test_links_begin_with_the_servers_public_address(connect: Connect) -> None:
    client = connect(public_url="https://images.example.org/")

    url = client.post(SCORE, json=PROMPT, headers=ASYNC).headers["location"]

    assert url.startswith("https://images.example.org/jobs/")
