"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from safelight import errors
from tests.api.fake_dispatcher import FakeDispatcher


@pytest.fixture
def client(connect: Callable[..., TestClient]) -> TestClient:
    """Of an app that has counted nothing yet."""
    return connect()


def scrape(client: TestClient) -> dict[tuple[str, ...], float]:
    """(name, sorted label values...) -> value."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_requests_are_counted_by_dialect_and_status(client: TestClient, dispatcher: FakeDispatcher) -> None:
    client.post("/score", json={"inputs": "a"})
    client.post("/predict", json={"inputs": "a"})
    client.post("/predict", json={})
    client.get("/")
    client.get("/nope")
    dispatcher.error = errors.Overloaded("full")
    client.post("/v1/images/generations", json={"prompt": "a"})

    samples = scrape(client)
    assert {key[1:]: value for key, value in samples.items() if key[0] == "safelight_requests_total"} == {
        ("huggingface", "200"): 2,
        ("huggingface", "400"): 1,
        ("health", "200"): 1,
        ("other", "404"): 1,
        ("openai", "429"): 1,
    }
    assert samples[("safelight_request_seconds_count", "huggingface")] == 3


def test_what_the_replicas_did_is_there(client: TestClient) -> None:
    samples = scrape(client)

    assert samples[("safelight_ready",)] == 1
    assert samples[("safelight_queue_depth",)] == 3
    assert samples[("safelight_running",)] == 2
    assert samples[("safelight_transformer_calls_total",)] == 11
    assert samples[("safelight_steps_run_total",)] == 20
    assert samples[("safelight_steps_saved_total",)] == 7
    assert samples[("safelight_prompt_cache_hits_total",)] == 4
    assert samples[("safelight_prompt_cache_misses_total",)] == 5
    assert samples[("safelight_replica_restarts_total",)] == 1


def test_batch_rows_are_a_histogram(client: TestClient) -> None:
    samples = scrape(client)

    assert {key[1]: value for key, value in samples.items() if key[0] == "safelight_batch_rows_bucket"} == {
        "1.0": 6,
        "2.0": 9,
        "4.0": 11,
        "+Inf": 11,
    }
    assert samples[("safelight_batch_rows_sum",)] == 6 + 3 * 2 + 2 * 4


def test_every_stage_has_a_count_and_its_seconds(client: TestClient) -> None:
    samples = scrape(client)

    assert samples[("safelight_stage_seconds_count", "decode")] == 5
    assert samples[("safelight_stage_seconds_sum", "decode")] == 2.5


def test_two_apps_do_not_share_their_counts(client: TestClient) -> None:
    assert ("safelight_requests_total", "openai", "200") not in scrape(client)
