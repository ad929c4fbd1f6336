from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from safelight.cli.status import screen


def deployment(name: str | None, pictures: int, replicas: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    endpoint, traffic = (None, None) if name is None else ("flux", 100)
    known = {"endpoint": endpoint, "name": name, "traffic": traffic, "model": "sprite", "queued": 0, "running": 0}
    return known | {"replicas": replicas, "pictures": pictures} | more


def status(*deployments: dict[str, Any], role: str = "alone", gateways: int | None = None) -> dict[str, Any]:
    return {"gateway": {"role": role, "gateways": gateways}, "endpoints": ["flux"], "deployments": list(deployments)}


def printed(now: dict[str, Any], before: dict[str, Any], seconds: float = 2.0) -> str:
    output = StringIO()
    known = {(each["endpoint"], each["name"]): each for each in before["deployments"]}
    Console(file=output, width=160).print(screen(now, known, seconds))
    return output.getvalue()


def test_a_screen_has_replicas_queue_nodes_and_pictures_a_second() -> None:
    replicas = [{"name": "replica 0", "state": "ready", "pid": 7, "node": "n1"}, {"name": "1", "state": "loading"}]
    before = status(deployment("blue", 10, replicas))
    now = status(deployment(None, 0, []), deployment("blue", 15, replicas, queued=4, running=2))

    own, blue = printed(now, before).splitlines()[-2:]

    assert "(the server's own)" in own
    assert "not ready here yet" in own
    assert blue.split() == [
        "flux",
        "blue",
        "100%",
        "sprite",
        "1",
        "ready,",
        "1",
        "loading",
        "n1",
        "(1)",
        "2",
        "4",
        "2.5",
    ]


def test_replicas_that_started_anew_make_no_negative_pictures_and_a_strangers_name_moves_no_cursor() -> None:
    before, now = status(deployment("blue", 10, [])), status(deployment("blue", 1, [], model="\x1b[2Jevil"))

    text = printed(now, before)

    assert " 0.0" in text
    assert "\x1b" not in text


def test_of_several_gateways_it_says_which_one_is_shown() -> None:
    now = status(role="follower", gateways=3)

    assert "follower, one of 3 gateways; what follows is this one's" in printed(now, now)
