"""The screen of `safelight status`, and its lines."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from safelight.cli import status as command
from safelight.cli.arm import RequestRefused
from safelight.cli.status import _look_again, lines, screen
from safelight.cli.status_source import find_source
from safelight.control.secrets.private_files import ADMIN_TOKEN_FILE
from safelight.server.address import ServerAddress, write_address
from tests.live_server import live_server


def deployment(name: str | None, pictures: int, replicas: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    endpoint, traffic = (None, None) if name is None else ("flux", 100)
    told = {"endpoint": endpoint, "name": name, "traffic": traffic, "model": "sprite", "queued": 0, "running": 0}
    return told | {"replicas": replicas, "pictures": pictures, "ready": False, "latency": {}} | more


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "INTERVAL_S", 0.0)


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """What answers every request so, until the block ends."""

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def status(*deployments: dict[str, Any]) -> dict[str, Any]:
    return {"endpoints": ["flux"], "deployments": list(deployments)}


def printed(*looks: dict[str, Any], seconds: float = 2.0, width: int = 160) -> str:
    output = StringIO()
    Console(file=output, width=width).print(
        screen([(index * seconds, each) for index, each in enumerate(looks)], width)
    )
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


def test_a_terminal_that_is_too_narrow_for_a_table_has_the_same_in_words() -> None:
    replicas = [{"name": "0", "state": "ready", "node": "f" * 56, "restarts": 2}]
    now = status(deployment("blue", 15, replicas, queued=4))

    text = printed(now, width=40)

    assert max(map(len, text.splitlines())) <= 40
    said = " ".join(text.split())
    assert "flux/blue: traffic 100%, model sprite, replicas 1 ready, where node" in said
    assert "restarts 2, running 0, queued 4, pictures/s 0.0" in said


ANSWERS: list[Any] = [
    b"Ok",
    b"[]",
    b"{}",
    b"null",
    b'{"ready": true, "replicas": [7]}',
    b'{"replicas": [], "ready": true}',
]
"""Of what listens there, to every question; the last one is ours."""


@pytest.mark.parametrize("answer", ANSWERS[:-1])
def test_what_is_no_server_of_ours_is_called_so(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(RequestRefused, match="no server of ours"):
        find_source(None, url)()


@pytest.mark.parametrize("answer", [*ANSWERS[1:4], b'{"deployments": 7}'])
def test_nor_is_it_taken_for_the_server_over_a_data_directory(answer: bytes, tmp_path: Path) -> None:
    (tmp_path / ADMIN_TOKEN_FILE).write_text("a-token")
    with answering(answer) as url:
        write_address(tmp_path, ServerAddress(url=url))
        with pytest.raises(RequestRefused, match="no server of ours"):
            find_source(tmp_path, None)()


def test_whoever_watches_a_server_is_told_that_it_is_away_and_sees_it_again() -> None:
    answers = iter([status(deployment("blue", 9, [])), None, None, status(deployment("blue", 1, []))])

    def read() -> dict[str, Any]:
        if (answer := next(answers)) is None:
            raise RequestRefused("no server answers")
        return answer

    looks = deque([(0.0, status(deployment("blue", 5, [])))], maxlen=9)
    told = [next(again) for again in [_look_again(looks, read)] for _ in range(4)]

    assert told == [None, "no server answers", "no server answers", None]
    assert [each["deployments"][0]["pictures"] for _, each in looks] == [1]


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
