"""`Webhook-Url`: which addresses are called, and what is sent there when a job has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safelight.errors import EngineFailure
from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.job_server import ASYNC, OPENAI, PROMPT, SCORE, Connect, serving_jobs
from tests.waiting import eventually
from tests.webhook_receiver import Receiver, receiving


@pytest.fixture
def connect(dispatcher: FakeDispatcher, tmp_path: Path) -> Iterator[Connect]:
    with serving_jobs(dispatcher, tmp_path) as start:
        yield start


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://127.0.0.1:9/x", "no public address"),
        ("http://[::ffff:10.0.0.1]/x", "no public address"),
        ("http://169.254.169.254/latest/meta-data", "no public address"),
        ("http://localhost/x", "no public address"),
        ("http://0x7f.1/x", "no public address"),
        ("http://127.1/x", "no public address"),
        ("http://2130706433/x", "no public address"),
        ("http://0/x", "no public address"),
        ("http://192.0.0.192/opc/v2/instance/", "no public address"),
        ("http://[::]/x", "no public address"),
        ("http://[::127.0.0.1]/x", "no public address"),
        ("http://[64:ff9b::a9fe:a9fe]/latest/meta-data", "no public address"),
        ("http://[fe80::1%lo]/x", "no public address"),
        ("ftp://example.org/x", "http or https"),
        ("https://8.8.8.8:99999/x", "http or https"),
        ("https://8.8.8.8:0/x", "http or https"),
        ("https://user:pass@8.8.8.8/x", "user and password"),
        ("nothing", "http or https"),
        (f"https://xn--a{'xn--a' * 100}/", "no URL"),
        ("http://nobody.invalid/", "cannot be found"),
    ],
)
def test_a_webhook_that_must_not_be_called_is_refused_at_once(connect: Connect, url: str, word: str) -> None:
    response = connect().post(OPENAI, json={"prompt": "a fox"}, headers=ASYNC | {"Webhook-Url": url})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Webhook-Url"
    assert word in response.json()["error"]["message"]


def test_a_webhook_is_told_of_the_end_and_signed_for_its_owner(connect: Connect, dispatcher: FakeDispatcher) -> None:
    client = connect(api_key="k", webhooks_to_private_addresses=True)
    dispatcher.error = EngineFailure("step 2 made NaN")
    with receiving(Receiver()) as receiver:
        job = client.post(SCORE, json=PROMPT, headers=ASYNC | {"Webhook-Url": receiver.url}).json()
        eventually(lambda: len(receiver.deliveries) == 1)
    [delivery] = receiver.deliveries

    assert delivery.is_signed_with(client.get("/webhook-secret").json()["secret"])
    assert delivery.headers["webhook-id"] == f"msg_{job['id']}"
    assert (delivery.json()["type"], delivery.json()["data"]["id"]) == ("job.failed", job["id"])
    assert client.get(delivery.json()["data"]["result"]).status_code == 500
    assert "authorization" not in delivery.headers


def test_a_webhook_without_the_preference_is_refused(connect: Connect) -> None:
    response = connect().post(SCORE, json=PROMPT, headers={"Webhook-Url": "https://8.8.8.8/"})

    assert response.status_code == 400
    assert "Prefer: respond-async" in response.json()["error"]["message"]
