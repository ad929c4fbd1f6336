"""The events of a request that nobody reads yet."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from safelight.errors import EngineFailure
from safelight.picture.generation import Event, Failed, Stage, Step
from safelight.serving.backends.requests import MAX_EVENTS, RequestsInFlight

pytestmark = pytest.mark.anyio


async def read_late(told: list[Event]) -> list[Event]:
    """What a reader gets that comes when all has been told."""
    requests = RequestsInFlight()
    tickets: list[int] = []

    def submit(ticket: int) -> None:
        for event in told:
            requests.pass_on(ticket, event)

    async with aclosing(requests.stream(submit, tickets.append)) as events:
        return [event async for event in events]


def stage(step: int) -> Stage:
    return Stage(name="step", image_index=0, began_s=0.0, seconds=0.0, step=step, host="h", pid=1)


async def test_a_slow_reader_misses_steps_and_no_stage_nor_the_end() -> None:
    number = 3 * MAX_EVENTS
    told: list[Event] = [each for index in range(number) for each in (Step(0, index, number), stage(index))]

    events = await read_late([*told, Failed(EngineFailure("the end"))])

    assert [each.step for each in events if isinstance(each, Stage)] == [*range(number)]
    assert 0 < sum(isinstance(each, Step) for each in events) <= MAX_EVENTS
    assert isinstance(events[-1], Failed)
