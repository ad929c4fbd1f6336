"""Load in an open loop, where what is late counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from safelight.cli.bench import load
from safelight.cli.bench.load import Load, Run, run_load
from safelight.cli.bench.mix import Shape, pictures
from safelight.cli.bench.target import parse_target
from tests.bare_server import HANG, bare_server, json_response, picture
from tests.waiting import eventually

SHAPES = (Shape("any"),)


def put(run: Run, meanwhile: Callable[[], None] | None = None) -> Run:
    async def putting() -> None:
        if meanwhile is not None:
            asyncio.get_running_loop().call_later(0.01, meanwhile)
        await run_load(run.target, run.load, pictures(SHAPES, (), 0), run, asyncio.Event())

    asyncio.run(putting())
    return run


def test_a_request_that_is_sent_late_is_counted_from_when_it_was_due() -> None:
    with bare_server(picture) as server:
        run = Run(parse_target(server.url), Load(rate=1_000, requests=50, warm_up_s=0))
        put(run, meanwhile=lambda: time.sleep(0.3))  # nothing is sent, though much is due

    late = [each for each in run.samples if each.sent_at - each.due_at > 0.1]
    assert late
    assert all(each.latency_s == each.done_at - each.due_at > 0.1 for each in late)


def test_the_moments_of_an_open_loop_are_those_of_its_seed() -> None:
    def moments(seed: int) -> list[float]:
        run = Run(target, Load(rate=2_000, requests=20, warm_up_s=0))
        asyncio.run(run_load(target, run.load, pictures(SHAPES, (), 0), run, asyncio.Event(), seed=seed))
        due = sorted(each.due_at for each in run.samples)
        return [round(later - earlier, 6) for earlier, later in pairwise(due)]

    with bare_server(picture) as server:
        target = parse_target(server.url)
        first, again, other = moments(1), moments(1), moments(2)

    assert first == again != other


def test_a_short_run_has_its_share_of_a_core() -> None:
    with bare_server(picture) as server:
        run = put(Run(parse_target(server.url), Load(requests=10, warm_up_s=0)))

    assert run.cpu_share > 0


def test_a_client_that_was_told_to_come_back_keeps_no_run_from_its_end() -> None:
    refusal = json_response("429 Full", {}, "retry-after: 3600")
    with bare_server(lambda number: picture(0) if number else refusal) as server:
        run = Run(parse_target(server.url), Load(clients=2, requests=6, warm_up_s=0, timeout_s=3_600))
        load = run_load(run.target, run.load, pictures(SHAPES, (), 0), run, asyncio.Event())
        asyncio.run(asyncio.wait_for(load, 60))

    assert [each.error for each in run.counted].count(None) == 5


def test_a_run_that_is_ended_at_once_has_an_end() -> None:
    async def ended() -> None:
        task = asyncio.create_task(run_load(run.target, run.load, pictures(SHAPES, (), 0), run, asyncio.Event()))
        await asyncio.to_thread(eventually, lambda: bool(server.requests))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with bare_server(lambda _: HANG) as server:
        run = Run(parse_target(server.url), Load(requests=10, warm_up_s=0))
        asyncio.run(ended())

    assert run.is_stopped
    assert (run.num_unfinished, run.seconds < 60) == (1, True)


def test_a_server_that_hangs_holds_only_so_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MAX_WAITING", 5)
    with bare_server(lambda _: HANG) as server:
        run = put(Run(parse_target(server.url), Load(rate=5_000, requests=100, warm_up_s=0, timeout_s=5)))

    errors = [each.error for each in run.samples]
    assert (errors.count("timeout"), errors.count("not sent")) == (5, 95)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("999999999999", 3_600, 3_600),
        ("in half an hour", 1_500, 1_800),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("soon", None, None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None, None),
        ("-1", None, None),
        ("1.5", None, None),
    ],
)
def test_when_to_come_back_is_read_as_seconds_or_as_a_date(told: str, least: int | None, most: int) -> None:
    if told == "in half an hour":
        told = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    with bare_server(lambda _: json_response("429 Full", {}, f"retry-after: {told}")) as server:
        run = put(Run(parse_target(server.url), Load(rate=100, requests=1, warm_up_s=0)))

    (found,) = (each.retry_after_s for each in run.samples)
    assert found is None if least is None else found is not None and least <= found <= most


def test_a_date_to_come_back_at_is_one_of_the_servers_clock() -> None:
    told = ("date: Thu, 01 Jan 1970 00:00:00 GMT", "retry-after: Thu, 01 Jan 1970 00:00:20 GMT")
    with bare_server(lambda _: json_response("429 Full", {}, *told)) as server:
        run = put(Run(parse_target(server.url), Load(rate=100, requests=1, warm_up_s=0)))

    assert [each.retry_after_s for each in run.samples] == [20]


def test_only_a_refusal_tells_clients_to_come_back() -> None:
    with bare_server(lambda _: json_response("500 Oh", {}, "retry-after: 20")) as server:
        run = put(Run(parse_target(server.url), Load(rate=100, requests=1, warm_up_s=0)))

    assert [each.retry_after_s for each in run.samples] == [None]
