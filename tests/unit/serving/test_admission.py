from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from safelight.errors import GenerationCancelled, ModelLoadError, NotReady, Overloaded, SafelightError
from safelight.serving import paces
from safelight.serving.admission import Admission
from safelight.serving.backends.protocol import Replica, ReplicaState
from safelight.serving.unloading import Startable, Unloading

pytestmark = pytest.mark.anyio


@dataclass(eq=False)
class StillReplica:
    """All that admission asks of a replica."""

    name: str = "replica 0"
    state: ReplicaState = ReplicaState.READY
    error: SafelightError | None = None
    num_places: int = 1


def admission(
    *replicas: StillReplica, places: int = 1, queue: int = 10, wait_s: float | None = None, hold_s: float = 0.0
) -> Admission:
    for each in replicas:
        each.num_places = places
    return Admission(
        lambda: cast("list[Replica]", list(replicas)),
        max_queued_requests=queue,
        max_queue_wait_s=wait_s,
        hold_while_loading_s=hold_s,
    )


async def settle(door: Admission, *, queued: int) -> None:
    while door.num_queued != queued:  # noqa: ASYNC110  turns of the event loop, not time
        await asyncio.sleep(0)


async def test_places_go_to_the_least_loaded_replica_that_is_ready() -> None:
    one, other, loading = StillReplica("a"), StillReplica("b"), StillReplica("c", ReplicaState.LOADING)
    door = admission(one, other, loading, places=2)

    places = [await door.acquire() for _ in range(4)]

    assert places == [one, other, one, other]


async def test_a_slow_replica_gets_as_much_less_as_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "LOOK_AGAIN_S", 0.0)
    slow, quick = StillReplica("a"), StillReplica("b")
    door = admission(slow, quick, places=8)
    for _ in range(3):
        door.observe(cast("Replica", quick), 1.0, 1.0)
    for _ in range(3):
        door.observe(cast("Replica", slow), 4.0, 1.0)

    places = [await door.acquire() for _ in range(10)]

    assert places.count(cast("Replica", slow)) == 2
    assert places[:3] == [quick] * 3


async def test_retry_after_is_the_time_that_the_queue_takes_at_the_measured_pace() -> None:
    one = StillReplica("a")
    door = admission(one, StillReplica("b"), places=2, queue=7)
    door.observe(cast("Replica", one), 6.0, 1.0)
    for _ in range(4):
        await door.acquire()
    waiting = [asyncio.create_task(door.acquire()) for _ in range(7)]
    await settle(door, queued=7)

    with pytest.raises(Overloaded) as refusal:
        door.check()

    assert refusal.value.retry_after_s == 12  # 8 turns of 6 s in 4 places
    for each in waiting:
        each.cancel()


async def test_a_request_whose_turn_does_not_come_in_time_is_refused_and_leaves_the_line() -> None:
    replica = StillReplica()
    door = admission(replica, wait_s=0.01)
    await door.acquire()

    with pytest.raises(Overloaded, match=r"0\.01 s for its place"):
        await door.acquire()

    assert door.num_queued == 0
    door.release(replica)
    assert await door.acquire() is replica


async def test_a_rerun_waits_for_its_turn_however_long_it_takes() -> None:
    replica = StillReplica()
    door = admission(replica, wait_s=0.01)
    await door.acquire()
    rerun = asyncio.create_task(door.acquire(is_rerun=True))

    with pytest.raises(Overloaded):
        await door.acquire()
    door.release(replica)

    assert await rerun is replica


async def test_without_a_queue_a_request_that_finds_no_place_is_refused() -> None:
    door = admission(StillReplica(), queue=0)
    await door.acquire()

    with pytest.raises(Overloaded):
        await door.acquire()


async def test_a_place_that_was_given_to_a_cancelled_request_goes_to_the_next() -> None:
    """Both in the same turn of the event loop: the place was given, and the task does not know it yet."""
    door = admission(StillReplica())
    replica = await door.acquire()
    leaving, staying = asyncio.create_task(door.acquire()), asyncio.create_task(door.acquire())
    await settle(door, queued=2)

    door.release(replica)
    leaving.cancel()

    assert await staying is replica
    assert (door.num_running, door.num_queued) == (1, 0)


async def test_a_rerun_goes_to_the_head_of_the_line() -> None:
    door = admission(StillReplica(), queue=1)
    replica = await door.acquire()
    waiting = asyncio.create_task(door.acquire())
    await settle(door, queued=1)
    rerun = asyncio.create_task(door.acquire(is_rerun=True))
    await settle(door, queued=2)

    door.release(replica)
    await rerun

    assert not waiting.done()
    door.release(replica)
    await waiting


async def test_one_in_line_is_told_where_it_stands_whenever_that_has_changed() -> None:
    door = admission(StillReplica())
    replica = await door.acquire()
    ahead = asyncio.create_task(door.acquire())
    await settle(door, queued=1)
    line = door.line_up(tells_position=True)

    assert await anext(line) == 2
    door.release(replica)
    await ahead
    assert await anext(line) == 1
    door.release(replica)
    assert await anext(line) is replica
    assert (door.num_running, door.num_queued) == (1, 0)


@pytest.mark.parametrize("is_next", [False, True])
async def test_one_who_leaves_the_line_when_told_its_position_leaves_nothing_behind(is_next: bool) -> None:
    """Its turn may have come while it held the news."""
    door = admission(StillReplica())
    replica = await door.acquire()
    line = door.line_up(tells_position=True)
    assert await anext(line) == 1
    if is_next:
        door.release(replica)

    await line.aclose()

    assert (door.num_running, door.num_queued) == (0 if is_next else 1, 0)


async def test_those_who_wait_are_told_when_the_last_replica_has_failed() -> None:
    replica = StillReplica()
    door = admission(replica)
    await door.acquire()
    waiting = asyncio.create_task(door.acquire())
    await settle(door, queued=1)

    replica.state, replica.error = ReplicaState.FAILED, ModelLoadError("no file")
    door.wake()

    with pytest.raises(NotReady, match="no file"):
        await waiting


async def test_a_closed_door_refuses_the_new_and_keeps_the_line() -> None:
    door = admission(StillReplica())
    replica = await door.acquire()
    waiting = asyncio.create_task(door.acquire())
    await settle(door, queued=1)

    door.close(NotReady("shutting down"))

    with pytest.raises(NotReady, match="shutting down"):
        door.check()
    door.release(replica)
    assert await waiting is replica


async def test_ending_the_line_ends_all_that_wait() -> None:
    door = admission(StillReplica())
    await door.acquire()
    waiting = asyncio.create_task(door.acquire())
    await settle(door, queued=1)

    door.refuse_waiting(GenerationCancelled("shutting down"))

    with pytest.raises(GenerationCancelled):
        await waiting


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.LOADING])
async def test_while_a_replica_loads_requests_are_held_until_it_is_ready(state: ReplicaState) -> None:
    loading, failed = StillReplica("a", state), StillReplica("b", ReplicaState.FAILED)
    door = admission(loading, failed, hold_s=60)
    door.check_at_door()
    held = [asyncio.create_task(door.wait_while_loading(60)) for _ in range(3)]
    await settle(door, queued=3)

    loading.state = ReplicaState.READY
    door.wake()

    await asyncio.gather(*held)
    assert door.num_queued == 0
    assert await door.acquire() is loading


@pytest.mark.parametrize(("hold_s", "timeout_s"), [(0.01, 60), (60, 0.01)])
async def test_a_request_is_held_no_longer_than_it_may_be_nor_beyond_its_timeout(
    hold_s: float, timeout_s: float
) -> None:
    door = admission(StillReplica("a", ReplicaState.LOADING), hold_s=hold_s)

    with pytest.raises(NotReady, match="a is loading") as refusal:
        await door.wait_while_loading(timeout_s)

    assert refusal.value.retry_after_s == 5
    assert door.num_queued == 0


async def test_those_that_were_held_get_their_places_in_the_order_in_which_they_came() -> None:
    replica = StillReplica("a", ReplicaState.LOADING)
    door, served = admission(replica, queue=50, hold_s=60), []

    async def ask(number: int) -> None:
        await door.wait_while_loading(60)
        place = await door.acquire()
        served.append(number)
        door.release(place)

    asking = []
    for number in range(50):
        asking.append(asyncio.create_task(ask(number)))
        await settle(door, queued=number + 1)
    replica.state = ReplicaState.READY
    door.wake()
    await asyncio.gather(*asking)

    assert served == sorted(served)


async def test_no_more_are_held_than_may_wait() -> None:
    door = admission(StillReplica("a", ReplicaState.LOADING), queue=2, hold_s=60)
    held = [asyncio.create_task(door.wait_while_loading(60)) for _ in range(2)]
    await settle(door, queued=2)

    with pytest.raises(Overloaded):
        door.check_at_door()
    with pytest.raises(Overloaded):
        await door.wait_while_loading(60)

    for each in held:
        each.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert door.num_queued == 0
    door.check_at_door()


async def test_what_is_held_for_a_model_that_fails_to_load_is_refused_at_once() -> None:
    replica = StillReplica("a", ReplicaState.LOADING)
    door = admission(replica, hold_s=60)
    held = asyncio.create_task(door.wait_while_loading(60))
    await settle(door, queued=1)

    replica.state, replica.error = ReplicaState.FAILED, ModelLoadError("no weights")
    door.wake()

    with pytest.raises(NotReady, match="no weights"):
        await held


async def test_what_is_held_is_refused_when_the_server_stops() -> None:
    door = admission(StillReplica("a", ReplicaState.LOADING), hold_s=60)
    held = asyncio.create_task(door.wait_while_loading(60))
    await settle(door, queued=1)

    door.close(NotReady("the server is shutting down"))
    door.wake()

    with pytest.raises(NotReady, match="shutting down"):
        await held


@pytest.mark.parametrize(
    ("state", "hold_s", "queue"),
    [(ReplicaState.LOADING, 0, 10), (ReplicaState.LOADING, 60, 0), (ReplicaState.FAILED, 60, 10)],
)
async def test_where_nothing_can_be_waited_for_nothing_is_held(state: ReplicaState, hold_s: float, queue: int) -> None:
    door = admission(StillReplica("a", state), hold_s=hold_s, queue=queue)

    with pytest.raises(NotReady):
        door.check_at_door()
    with pytest.raises(NotReady):
        await door.wait_while_loading(60)


async def test_a_replica_that_is_about_to_be_stopped_for_idleness_takes_nobody_and_whoever_comes_is_held() -> None:
    """It learns of it a turn of the event loop later, and would fail what it took in this one."""
    replica = StillReplica()
    unloading = Unloading(cast("Startable", replica), idle_s=1, is_idle=lambda: True, on_change=lambda: None)
    door = Admission(
        lambda: cast("list[Replica]", [replica]), max_queued_requests=1, hold_while_loading_s=60, unloading=unloading
    )
    unloading.is_unloaded = True

    with pytest.raises(NotReady):
        await door.acquire()
    door.check_at_door()
    held = asyncio.create_task(door.wait_while_loading(60))
    await settle(door, queued=1)
    unloading.is_unloaded = False
    door.wake()

    await held
    assert await door.acquire() is replica
