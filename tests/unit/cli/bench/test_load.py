"""Load in an open loop, where what is late counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from safelight.cli.bench import load
from safelight.cli.bench.load import Load, Run, run_load
from safelight.cli.bench.mix import Shape, pictures
from safelight.cli.bench.target import parse_target
from tests.bare_server import HANG, bare_server, json_response, picture

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
