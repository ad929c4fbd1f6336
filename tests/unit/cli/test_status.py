"""The screen of `safelight status`, and its lines."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from safelight.cli.status import lines, screen
from safelight.cli.status_source import find_source
from tests.live_server import live_server


def deployment(name: str | None, pictures: int, replicas: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    endpoint, traffic = (None, None) if name is None else ("flux", 100)
    told = {"endpoint": endpoint, "name": name, "traffic": traffic, "model": "sprite", "queued": 0, "running": 0}
    return told | {"replicas": replicas, "pictures": pictures, "ready": False, "latency": {}} | more


def status(*deployments: dict[str, Any]) -> dict[str, Any]:
    return {"endpoints": ["flux"], "deployments": list(deployments)}


def printed(*looks: dict[str, Any], seconds: float = 2.0) -> str:
    output = StringIO()
    Console(file=output, width=160).print(screen([(index * seconds, each) for index, each in enumerate(looks)]))
    return output.getvalue()


def test_a_screen_has_replicas_nodes_restarts_queue_and_pictures_a_second() -> None:
    replicas = [
        {"name": "replica 0", "state": "ready", "pid": 7, "node": "n1", "restarts": 2},
        {"name": "1", "state": "loading", "restarts": 0, "detail": "killed by SIGKILL", "plan": "int8 on cuda:0"},
    ]
    now = status(deployment(None, 0, []), deployment("blue", 15, replicas, queued=4, running=2))

    text = printed(status(deployment("blue", 10, replicas)), now)

    assert "1 endpoint(s), 1 of 2 replica(s) ready, 2 running, 4 queued, 2.5 pictures/s" in text
    (own,) = [line for line in text.splitlines() if line.startswith("(the server's own)")]
    (blue,) = [line for line in text.splitlines() if line.startswith("flux/blue ")]
    assert "not ready" in own
    assert " ".join(blue.split()) == "flux/blue 100% sprite 1 ready, 1 loading node n1 2 2 4 2.5 -"
    assert "flux/blue, 1: killed by SIGKILL" in text
    assert "flux/blue, 1: int8 on cuda:0" in text


def test_p95_is_that_of_the_looks_or_else_of_all() -> None:
    long_ago = {"0.5": 0.0, "1.0": 1000.0, "+Inf": 1000.0}
    since = {"0.5": 100.0, "1.0": 1100.0, "+Inf": 1100.0}
    slow = {"0.5": 0.0, "1.0": 1000.0, "+Inf": 1100.0}

    def p95(before: dict[str, float], now: dict[str, float]) -> str:
        looks = [status(deployment(None, 0, [], latency=each)) for each in (before, now)]
        return lines([(0.0, looks[0]), (1.0, looks[1])])[1].rpartition("p95=")[2]

    assert p95(long_ago, since) == "'<= 0.5 s'"
    assert p95(long_ago, long_ago) == "'<= 1 s'"
    assert p95(long_ago, slow) == "'> 1 s'"
    assert p95({}, {}) == "-"


def test_replicas_that_started_anew_make_no_negative_pictures_and_a_strangers_name_moves_no_cursor() -> None:
    text = printed(status(deployment("blue", 10, [])), status(deployment("blue", 1, [], model="\x1b[2Jevil")))

    assert " 0.0" in text
    assert "\x1b" not in text


def test_without_a_terminal_each_deployment_is_a_line_of_names_and_values() -> None:
    told = lines([(0.0, status(deployment("blue", 0, [{"state": "ready", "pid": 7}])))])

    assert told[1].startswith("deployment=flux/blue traffic=100% model=sprite replicas='1 ready' where='pid 7'")


def test_without_the_administrators_token_it_tells_what_health_and_metrics_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_server(api_key="k" * 20) as server:
        stranger = find_source(None, server.url)()
        monkeypatch.setenv("SAFELIGHT_API_KEY", "k" * 20)
        known = find_source(None, server.url)()

    assert [each["state"] for each in stranger["deployments"][0]["replicas"]] == ["ready"]
    assert stranger["deployments"][0]["model"] is None
    assert known["deployments"][0]["model"] == "fake"
    assert isinstance(known["deployments"][0]["replicas"][0]["pid"], int)
    assert known["deployments"][0]["ready"] is True


def test_of_several_gateways_it_says_which_one_is_shown() -> None:
    now = status() | {"gateway": {"role": "follower", "gateways": 3}}

    assert "follower, one of 3 gateways; what follows is this one's. 1 endpoint(s)" in printed(now, now)
