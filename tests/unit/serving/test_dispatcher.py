"""The dispatcher with real child processes that run FakeEngine; every wait is for an event, none is for luck."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
from contextlib import aclosing, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.errors import (
    DeadlineExceeded,
    EngineFailure,
    GenerationCancelled,
    InvalidRequest,
    ModelLoadError,
    NonFiniteValues,
    NotReady,
    Overloaded,
    ReplicaLost,
)
from safelight.picture.generation import Completed, Failed, GenerationRequest, ImageCompleted, Queued, Step
from safelight.serving.dispatcher import Dispatcher
from tests.fakes import (
    FakeDeployment,
    FakeEngineOptions,
    Gate,
    expected_pixels,
    fake_dispatcher,
    fake_request,
    running_dispatcher,
    until,
)

pytestmark = pytest.mark.anyio


def gated(gate: Gate, **values: int) -> FakeDeployment:
    return FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)), **values)


def transformer_calls(dispatcher: Dispatcher) -> int:
    return dispatcher.snapshot().counters.transformer_calls


def kill(dispatcher: Dispatcher, index: int = 0) -> None:
    pid = dispatcher.snapshot().replicas[index].whereabouts["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def begin(dispatcher: Dispatcher, request: GenerationRequest, gate: Gate) -> asyncio.Task[object]:
    """A request whose first step is done and whose second one waits at the gate."""
    before = transformer_calls(dispatcher)
    task: asyncio.Task[object] = asyncio.create_task(dispatcher.generate(request))
    gate.allow(1)
    await until(lambda: transformer_calls(dispatcher) == before + 1)
    return task


async def let_pass_until_dropped(dispatcher: Dispatcher, gate: Gate) -> None:
    """Let calls pass one at a time, slowly, until the replica says that it dropped the request."""
    while dispatcher.snapshot().counters.steps_saved == 0:
        gate.allow(1)
        with suppress(TimeoutError):
            await until(lambda: dispatcher.snapshot().counters.steps_saved > 0, timeout_s=0.5)


async def test_a_request_becomes_its_picture() -> None:
    request = fake_request(width=32, height=48)
    async with running_dispatcher() as dispatcher:
        result = await dispatcher.generate(request)

    pixels = np.asarray(Image.open(BytesIO(result.images[0].content)))
    assert np.array_equal(pixels, expected_pixels(request, request.seed))
    assert result.images[0].seed == request.seed


async def test_n_images_count_their_seeds_up_and_each_equals_the_one_made_alone() -> None:
    async with running_dispatcher() as dispatcher:
        several = await dispatcher.generate(fake_request(seed=5, num_images_per_prompt=3))
        alone = await dispatcher.generate(fake_request(seed=6))

    assert [image.seed for image in several.images] == [5, 6, 7]
    pictures = [Image.open(BytesIO(image.content)).tobytes() for image in several.images]
    assert pictures[1] == Image.open(BytesIO(alone.images[0].content)).tobytes()
    assert len(set(pictures)) == 3


async def test_a_stream_tells_every_step_and_ends_with_the_result() -> None:
    async with running_dispatcher() as dispatcher, aclosing(dispatcher.stream(fake_request())) as events:
        seen = [event async for event in events]

    assert seen[:5] == [Queued(), *(Step(0, index, 4) for index in (1, 2, 3, 4))]
    assert isinstance(seen[5], Completed)
    assert len(seen) == 6


async def test_a_stream_that_waits_tells_its_place_and_leaves_it_when_its_reader_does(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        ahead = dispatcher.stream(fake_request(is_streamed=True))
        behind = dispatcher.stream(fake_request(is_streamed=True))
        assert [await anext(ahead), await anext(ahead)] == [Queued(), Queued(1)]
        assert [await anext(behind), await anext(behind)] == [Queued(), Queued(2)]

        await ahead.aclose()

        assert await anext(behind) == Queued(1)
        gate.open()
        rest = [event async for event in behind]
        await running
        assert isinstance(rest[-1], Completed)


async def test_a_reader_who_is_slow_misses_steps_and_no_image() -> None:
    request = fake_request(num_inference_steps=100, num_images_per_prompt=10, is_streamed=True)
    async with running_dispatcher() as dispatcher, aclosing(dispatcher.stream(request)) as events:
        async for event in events:
            if isinstance(event, Step):
                break
        await until(lambda: dispatcher.snapshot().counters.steps_run == 1000)

        rest = [event async for event in events]

    assert sum(isinstance(event, Step) for event in rest) < 999
    images = [event for event in rest if isinstance(event, ImageCompleted)]
    assert sorted(event.image.seed for event in images) == list(range(7, 17))
    assert isinstance(rest[-1], Completed)
    assert {event.image for event in images} == set(rest[-1].result.images)


async def test_requests_share_steps(gate: Gate) -> None:
    async with running_dispatcher(gated(gate)) as dispatcher:
        first = await begin(dispatcher, fake_request(num_inference_steps=20), gate)
        others = [asyncio.create_task(dispatcher.generate(fake_request(seed=seed))) for seed in range(4)]
        await until(lambda: dispatcher.snapshot().running == 5)
        gate.open()
        await asyncio.gather(first, *others)
        counters = dispatcher.snapshot().counters

    assert counters.steps_run == 20 + 4 * 4
    assert counters.transformer_calls <= 20 + 4
    assert max(counters.batch_sizes) >= 4


async def test_the_least_loaded_replica_gets_the_next_request(gate: Gate) -> None:
    deployment = gated(gate, num_replicas=2, max_concurrent_requests=1)
    async with running_dispatcher(deployment) as dispatcher:
        tasks = [asyncio.create_task(dispatcher.generate(fake_request(seed=seed))) for seed in range(2)]
        await until(lambda: dispatcher.snapshot().running == 2)
        queued = dispatcher.snapshot().queued
        gate.open()
        await asyncio.gather(*tasks)

        counters = dispatcher.snapshot().counters
    assert queued == 0
    assert counters.transformer_calls == 8  # four in each process: nothing was shared


@pytest.mark.parametrize("word", ["FAIL_START", "FAIL_STEP", "FAIL_DECODE"])
async def test_an_engine_that_raises_fails_the_request_and_the_replica_goes_on(word: str) -> None:
    async with running_dispatcher() as dispatcher:
        with pytest.raises(EngineFailure):
            await dispatcher.generate(fake_request(word))

        assert await dispatcher.generate(fake_request())
        assert dispatcher.snapshot().restarts == 0


async def test_one_image_that_fails_fails_its_request_with_the_error_of_the_engine() -> None:
    async with running_dispatcher() as dispatcher:
        with pytest.raises(NonFiniteValues, match="step 1"):
            await dispatcher.generate(fake_request("FAIL_ROW", num_images_per_prompt=4, num_inference_steps=50))

        counters = dispatcher.snapshot().counters
    assert counters.steps_saved > 100


async def test_after_a_disconnect_at_most_one_more_transformer_call_is_made(gate: Gate) -> None:
    async with running_dispatcher(gated(gate)) as dispatcher:
        leaving = await begin(dispatcher, fake_request(num_inference_steps=50), gate)

        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await let_pass_until_dropped(dispatcher, gate)
        gate.open()
        await dispatcher.generate(fake_request(num_inference_steps=1))

        assert transformer_calls(dispatcher) <= 1 + 1 + 1 + 1  # its first step, the running one, one more, the other's
        assert dispatcher.snapshot().running == 0


async def test_leaving_a_stream_cancels_the_work(gate: Gate) -> None:
    gate.allow(1)
    async with running_dispatcher(gated(gate)) as dispatcher:
        async with aclosing(dispatcher.stream(fake_request(num_inference_steps=50))) as events:
            async for event in events:
                if isinstance(event, Step):
                    break

        await let_pass_until_dropped(dispatcher, gate)
        assert transformer_calls(dispatcher) <= 3


async def test_leaving_the_queue_costs_nothing(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        waiting = asyncio.create_task(dispatcher.generate(fake_request()))
        await until(lambda: dispatcher.snapshot().queued == 1)

        waiting.cancel()
        await until(lambda: dispatcher.snapshot().queued == 0)
        gate.open()
        await running

        assert transformer_calls(dispatcher) == 4


async def test_a_request_past_its_timeout_ends_and_its_steps_stop(gate: Gate) -> None:
    async with running_dispatcher(gated(gate)) as dispatcher:
        gate.allow(1)
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
            await dispatcher.generate(fake_request(num_inference_steps=50, timeout_s=0.2))

        await let_pass_until_dropped(dispatcher, gate)
        assert transformer_calls(dispatcher) <= 3


async def test_a_request_without_a_deadline_is_worked_on_until_it_is_done() -> None:
    async with running_dispatcher() as dispatcher:
        result = await dispatcher.generate(fake_request(timeout_s=math.inf))

    assert len(result.images) == 1


async def test_what_is_known_of_a_model_before_and_after_it_is_loaded_is_told(tmp_path: Path) -> None:
    options = FakeEngineOptions(plan="plan: int8", picture_s=900.0, load_gate=str(tmp_path / "gate"))
    dispatcher = fake_dispatcher(FakeDeployment(options=options))
    await dispatcher.start()
    try:
        plan = await dispatcher.wait_for_plan()
        assert not dispatcher.is_ready
        (tmp_path / "gate").touch()
        await dispatcher.wait_until_ready()
    finally:
        await dispatcher.stop()

    assert (plan, dispatcher.picture_s) == ("plan: int8", 900.0)


async def test_the_timeout_counts_the_time_in_the_queue(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)

        with pytest.raises(DeadlineExceeded, match="waited for a replica"):
            await dispatcher.generate(fake_request(timeout_s=0.05))

        gate.open()
        await running


async def test_a_full_queue_refuses_at_once_with_an_honest_retry_after(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1, max_queued_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        waiting = asyncio.create_task(dispatcher.generate(fake_request()))
        await until(lambda: dispatcher.snapshot().queued == 1)

        with pytest.raises(Overloaded) as refusal:
            dispatcher.stream(fake_request())

        assert refusal.value.retry_after_s >= 1
        gate.open()
        await asyncio.gather(running, waiting)
        assert await dispatcher.generate(fake_request())


async def test_the_queue_is_first_come_first_served(gate: Gate) -> None:
    done: list[int] = []

    async def generate(dispatcher: Dispatcher, number: int) -> None:
        await dispatcher.generate(fake_request(seed=number))
        done.append(number)

    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        tasks = [asyncio.create_task(generate(dispatcher, number)) for number in range(5)]
        await until(lambda: dispatcher.snapshot().queued == 4)
        gate.open()
        await asyncio.gather(*tasks)

    assert done == [0, 1, 2, 3, 4]


async def test_a_killed_replica_fails_its_requests_with_a_retriable_error_and_comes_back(gate: Gate) -> None:
    async with running_dispatcher(gated(gate)) as dispatcher:
        first_pid = dispatcher.snapshot().replicas[0].whereabouts["pid"]
        running = await begin(dispatcher, fake_request(num_images_per_prompt=2), gate)
        before = dispatcher.snapshot().counters

        kill(dispatcher)

        with pytest.raises(ReplicaLost, match=r"SIGKILL.*again"):
            await running
        assert not dispatcher.is_ready
        gate.open()
        await dispatcher.wait_until_ready()
        assert await dispatcher.generate(fake_request())
        snapshot = dispatcher.snapshot()
    assert snapshot.restarts == 1
    assert snapshot.replicas[0].whereabouts.get("pid") not in (None, first_pid)
    assert "SIGKILL" in snapshot.replicas[0].detail
    assert snapshot.counters.transformer_calls == before.transformer_calls + 4  # counters go on where they were


async def test_a_request_that_loses_its_replica_runs_again_on_another_one(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, num_replicas=2)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)

        kill(dispatcher, 0)
        gate.open()

        assert await running


async def test_a_request_that_ends_every_replica_is_tried_twice_and_no_more() -> None:
    async with running_dispatcher(FakeDeployment(num_replicas=3)) as dispatcher:
        with pytest.raises(ReplicaLost):
            await dispatcher.generate(fake_request("EXIT"))

        await until(lambda: dispatcher.snapshot().restarts == 2)
        assert await dispatcher.generate(fake_request())


async def test_a_replica_that_hangs_is_replaced(gate: Gate) -> None:
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)), min_patience_s=0.2)
    async with running_dispatcher(deployment) as dispatcher:
        with pytest.raises(DeadlineExceeded):
            await dispatcher.generate(fake_request(timeout_s=0.1))

        await until(lambda: dispatcher.snapshot().restarts == 1)
        assert "did not answer" in dispatcher.snapshot().replicas[0].detail


async def test_a_replica_that_has_nothing_to_do_may_be_silent() -> None:
    async with running_dispatcher(FakeDeployment(min_patience_s=0.02)) as dispatcher:
        await asyncio.sleep(0.2)  # ten times its patience

        assert dispatcher.is_ready
        assert dispatcher.snapshot().restarts == 0


async def test_requests_that_wait_for_the_lost_replica_are_served_when_it_is_back(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        waiting = asyncio.create_task(dispatcher.generate(fake_request()))
        await until(lambda: dispatcher.snapshot().queued == 1)

        kill(dispatcher)
        gate.open()

        assert await waiting
        assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], ReplicaLost)


async def test_nothing_is_admitted_while_no_replica_is_ready(tmp_path: Path) -> None:
    load_gate = tmp_path / "load"
    dispatcher = fake_dispatcher(FakeDeployment(options=FakeEngineOptions(load_gate=str(load_gate))))
    await dispatcher.start()
    try:
        await until(lambda: dispatcher.snapshot().replicas[0].state == "loading")

        assert not dispatcher.is_ready
        with pytest.raises(NotReady, match="replica 0 is loading"):
            await dispatcher.generate(fake_request())

        load_gate.touch()
        await dispatcher.wait_until_ready()
        assert await dispatcher.generate(fake_request())
    finally:
        await dispatcher.stop()


async def test_stopping_ends_a_replica_that_is_still_loading(tmp_path: Path) -> None:
    dispatcher = fake_dispatcher(FakeDeployment(options=FakeEngineOptions(load_gate=str(tmp_path / "never"))))
    await dispatcher.start()
    await until(lambda: dispatcher.snapshot().replicas[0].state == "loading")
    pid = dispatcher.snapshot().replicas[0].whereabouts["pid"]
    assert pid is not None

    await dispatcher.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_model_that_cannot_load_is_not_tried_again_and_says_why() -> None:
    error = "transformer/config.json is missing"
    dispatcher = fake_dispatcher(FakeDeployment(options=FakeEngineOptions(load_error=error), num_replicas=2))
    await dispatcher.start()
    try:
        with pytest.raises(ModelLoadError, match=error):
            await dispatcher.wait_until_ready()

        snapshot = dispatcher.snapshot()
        assert [(each.state, each.detail) for each in snapshot.replicas] == [("failed", error)] * 2
        assert snapshot.restarts == 0
        with pytest.raises(NotReady, match=error):
            await dispatcher.generate(fake_request())
    finally:
        await dispatcher.stop()


async def test_a_process_that_dies_while_it_loads_is_given_up_after_three_times() -> None:
    dispatcher = fake_dispatcher(FakeDeployment(options=FakeEngineOptions(crash_on_load=True)))
    await dispatcher.start()
    try:
        with pytest.raises(ModelLoadError, match="status 3 while loading the model, 3 times"):
            await dispatcher.wait_until_ready()
        assert dispatcher.snapshot().restarts == 2
    finally:
        await dispatcher.stop()


async def test_draining_refuses_the_new_and_finishes_what_was_admitted(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        waiting = asyncio.create_task(dispatcher.generate(fake_request()))
        await until(lambda: dispatcher.snapshot().queued == 1)

        draining = asyncio.create_task(dispatcher.drain(60))
        await until(lambda: dispatcher.snapshot().replicas[0].state == "draining")
        with pytest.raises(NotReady, match="shutting down"):
            await dispatcher.generate(fake_request())
        gate.open()
        await draining

        assert await running
        assert await waiting
        assert dispatcher.snapshot().replicas[0].state == "stopped"


async def test_draining_ends_what_is_not_done_in_time(gate: Gate) -> None:
    async with running_dispatcher(gated(gate, max_concurrent_requests=1)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        waiting = asyncio.create_task(dispatcher.generate(fake_request()))
        await until(lambda: dispatcher.snapshot().queued == 1)

        await dispatcher.drain(0)

        outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [GenerationCancelled, GenerationCancelled]


async def test_a_signal_to_the_process_group_does_not_end_a_running_request(gate: Gate) -> None:
    """Service managers send SIGTERM to every process of a service; the gateway alone decides when a replica ends."""
    async with running_dispatcher(gated(gate)) as dispatcher:
        running = await begin(dispatcher, fake_request(), gate)
        pid = dispatcher.snapshot().replicas[0].whereabouts["pid"]
        assert pid is not None

        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
        gate.open()

        assert await running


async def test_an_error_of_the_replica_keeps_its_class() -> None:
    async with running_dispatcher() as dispatcher, aclosing(dispatcher.stream(fake_request("FAIL_ROW"))) as events:
        last = [event async for event in events][-1]

    assert isinstance(last, Failed)
    assert isinstance(last.error, NonFiniteValues)
    assert not isinstance(last.error, InvalidRequest)


async def test_stages_are_timed_and_counted() -> None:
    async with running_dispatcher() as dispatcher:
        await dispatcher.generate(fake_request(num_images_per_prompt=2))
        stages = dispatcher.snapshot().counters.stages

    assert {name: time.count for name, time in stages.items() if name != "step"} == {
        "queue": 1,
        "encode": 2,
        "decode": 2,
        "image_encode": 2,
    }


async def test_many_clients_that_come_and_leave_lose_nothing() -> None:
    """Under load with cancellations, every request that stays gets its own picture, and no place is lost."""
    requests = [fake_request(f"picture {seed}", seed=seed, width=64 + 16 * (seed % 3)) for seed in range(60)]
    deployment = FakeDeployment(num_replicas=2, max_concurrent_requests=4, max_queued_requests=100)
    async with running_dispatcher(deployment) as dispatcher:
        tasks = [asyncio.create_task(dispatcher.generate(request)) for request in requests]
        await until(lambda: transformer_calls(dispatcher) > 0)
        for task in tasks[::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        snapshot = dispatcher.snapshot()

    assert (snapshot.queued, snapshot.running) == (0, 0)
    for index, (request, outcome) in enumerate(zip(requests, outcomes, strict=True)):
        if isinstance(outcome, BaseException):
            assert index % 3 == 0
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            pixels = np.asarray(Image.open(BytesIO(outcome.images[0].content)))
            assert np.array_equal(pixels, expected_pixels(request, request.seed))


async def test_nothing_of_a_request_is_left_for_the_garbage_collector() -> None:
    """An async generator that nobody closes wakes the event loop by its pipe, and takes a task to end."""
    left: list[object] = []
    async with running_dispatcher() as dispatcher:
        await dispatcher.generate(fake_request())
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=left.append)
        await dispatcher.generate(fake_request())
        gc.collect()
        sys.set_asyncgen_hooks(*hooks)

    assert left == []
