"""Replicas on the nodes of one cluster: what a gateway, or two of them, gets from them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from PIL import Image

from safelight.errors import DownloadError, ModelLoadError, Overloaded, SafelightError
from safelight.picture.generation import Completed, ImageCompleted, Preview, SourceImage, Step
from safelight.serving.backends.ray.cluster import RayCluster
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.scaling import Scaling
from safelight.settings import EngineOptions, Settings
from tests.fake_hub import GOOD_TOKEN, SHA
from tests.fakes import FakeEngineOptions, Gate, expected_pixels, fake_request, until
from tests.ray.cluster import what_shows
from tests.ray.conftest import SharedCluster
from tests.ray.dispatchers import gateway, starting_gateway

COLD = True
"""What runs on other nodes is not forked here: see `tests.warm`."""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def test_a_picture_is_the_one_that_a_replica_on_this_machine_makes(nodes: RayCluster) -> None:
    async def ask() -> np.ndarray:
        async with gateway(nodes, "picture") as dispatcher:
            result = await dispatcher.generate(fake_request("a lamp"))
        return np.asarray(Image.open(BytesIO(result.images[0].content)))

    assert (asyncio.run(ask()) == expected_pixels(fake_request("a lamp"), 7)).all()


def test_an_edit_with_its_pixels_goes_to_another_node(nodes: RayCluster) -> None:
    source = SourceImage(pixels=os.urandom(512 * 512 * 3), strength=0.5, mask=os.urandom(512 * 512))
    request = fake_request("a lamp", width=512, height=512, source=source)

    async def ask() -> np.ndarray:
        async with gateway(nodes, "edit") as dispatcher:
            result = await dispatcher.generate(request)
        return np.asarray(Image.open(BytesIO(result.images[0].content)))

    assert (asyncio.run(ask()) == expected_pixels(request, 7)).all()


def test_steps_previews_and_images_come_in_their_order(nodes: RayCluster) -> None:
    request = fake_request(num_images_per_prompt=2, num_previews=2, is_streamed=True)

    async def watch() -> list[object]:
        async with gateway(nodes, "stream") as dispatcher, aclosing(dispatcher.stream(request)) as events:
            return [event async for event in events]

    events = asyncio.run(watch())

    steps = [event.index for event in events if isinstance(event, Step) and event.image_index == 0]
    assert steps == [1, 2, 3, 4]
    assert sum(isinstance(event, Preview) for event in events) == 4
    assert sorted(event.image_index for event in events if isinstance(event, ImageCompleted)) == [0, 1]
    assert isinstance(events[-1], Completed)


def test_leaving_stops_the_replica_before_its_next_transformer_call(nodes: RayCluster, gate: Gate) -> None:
    options = FakeEngineOptions(gate=str(gate.path))

    async def leave() -> int:
        async with gateway(nodes, "leaving", options) as dispatcher, gateway(nodes, "leaving", options) as other:
            gate.allow(1)
            async with aclosing(dispatcher.stream(fake_request(num_inference_steps=50))) as events:
                async for event in events:
                    if isinstance(event, Step):
                        break
                await until(lambda: num_places(other) == 7)
            await until(lambda: num_places(other) == 8)
            probe = asyncio.create_task(dispatcher.generate(fake_request("another, HEARD")))
            await until(lambda: gate.has_heard)
            gate.open()
            await probe
            return sum(each.snapshot().counters.transformer_calls for each in (dispatcher, other))

    # one step was taken, one more had begun at the gate, and four are the probe's
    assert asyncio.run(leave()) <= 1 + 1 + 4


def test_a_thousand_clients_that_leave_at_once_all_stop_at_the_next_transformer_call(
    nodes: RayCluster, gate: Gate
) -> None:
    options, batch = FakeEngineOptions(gate=str(gate.path)), EngineOptions(max_batch_size=64)
    limit = {"engine": batch, "max_concurrent_requests": 1000}

    async def leave() -> int:
        async with gateway(nodes, "mass", options, **limit) as one, gateway(nodes, "mass", options, **limit) as other:
            asking = [
                asyncio.create_task(one.generate(fake_request(f"prompt {index}", num_inference_steps=10)))
                for index in range(1000)
            ]
            await until(lambda: num_places(other) == 0)
            for task in asking:
                task.cancel()
            await until(lambda: num_places(other) == 1000)
            probe = asyncio.create_task(one.generate(fake_request("a probe, HEARD", num_inference_steps=4)))
            await until(lambda: gate.has_heard)
            gate.open()
            await probe
            await until(lambda: num_steps(one, other) == 1000 * 10 + 4)
            return sum(each.snapshot().counters.steps_run - 2 for each in (one, other))

    assert asyncio.run(leave()) <= 64  # the call that had begun


@pytest.mark.parametrize("num_gateways", [1, 2])
def test_a_replica_runs_what_it_may_and_not_one_more_whichever_gateway_asks(
    nodes: RayCluster, gate: Gate, num_gateways: int
) -> None:
    name, options = f"exact-{num_gateways}", FakeEngineOptions(gate=str(gate.path))

    async def storm() -> list[str]:
        gateways = [gateway(nodes, name, options, max_concurrent_requests=2, max_queued=0) for _ in range(num_gateways)]
        dispatchers = [await each.__aenter__() for each in gateways]
        asking = [
            asyncio.create_task(outcome(dispatchers[index % num_gateways].generate, f"prompt {index}"))
            for index in range(12)
        ]
        await until(lambda: sum(task.done() for task in asking) == 10)
        gate.open()
        outcomes = await asyncio.gather(*asking)
        for each in reversed(gateways):
            await each.__aexit__(None, None, None)
        return outcomes

    outcomes = asyncio.run(storm())

    assert sorted(outcomes) == ["Overloaded"] * 10 + ["made"] * 2


def test_what_waits_gets_the_places_that_another_gateways_requests_leave(nodes: RayCluster, gate: Gate) -> None:
    options = FakeEngineOptions(gate=str(gate.path))

    async def share() -> list[str]:
        async with (
            gateway(nodes, "shared", options, max_concurrent_requests=1, max_queued=3) as one,
            gateway(nodes, "shared", options, max_concurrent_requests=1, max_queued=3) as other,
        ):
            asking = [asyncio.create_task(outcome(each.generate)) for each in (one, other, one, other, one, other)]
            await asyncio.sleep(0.5)
            gate.open()
            return await asyncio.gather(*asking)

    assert asyncio.run(share()) == ["made"] * 6


def test_two_gateways_come_to_the_same_replica_and_it_ends_with_the_last_of_them(nodes: RayCluster) -> None:
    async def come_and_go() -> tuple[set[object], bool, bool]:
        async with gateway(nodes, "common") as one:
            async with gateway(nodes, "common") as other:
                pids = {pid_of(each) for each in (one, other)}
            is_kept = psutil.pid_exists(pid_of(one))
            await one.generate(fake_request())
        return pids, is_kept, psutil.pid_exists(next(iter(pids)))

    pids, is_kept, is_left_behind = asyncio.run(come_and_go())

    assert len(pids) == 1
    assert is_kept
    assert not is_left_behind


def test_a_gateway_that_comes_as_a_replica_ends_gets_another_one(nodes: RayCluster) -> None:
    async def go_and_come_back() -> set[str]:
        async with gateway(nodes, "again"):
            pass
        states = set()
        async with starting_gateway(nodes, "again") as dispatcher:
            while "ready" not in states:
                states.add(str(dispatcher.snapshot().replicas[0].state))
                await asyncio.sleep(0)
        return states

    assert asyncio.run(go_and_come_back()) <= {"starting", "loading", "ready"}


def test_replicas_are_spread_over_nodes_with_room_for_them(nodes: RayCluster) -> None:
    async def place() -> set[object]:
        async with gateway(nodes, "spread", num_replicas=3) as dispatcher:
            return {each.whereabouts["node"] for each in dispatcher.snapshot().replicas}

    assert len(asyncio.run(place())) == 2


def test_an_instance_type_that_a_node_offers_is_where_the_replica_runs(nodes: RayCluster) -> None:
    offering = next(each["NodeID"] for each in ray.nodes() if "Standard_Big" in each["Resources"])

    async def place() -> object:
        async with gateway(nodes, "big", instance_type="Standard_Big") as dispatcher:
            return dispatcher.snapshot().replicas[0].whereabouts["node"]

    assert asyncio.run(place()) == offering


def test_a_replica_that_finds_no_room_is_given_up_with_what_it_needs(nodes: RayCluster) -> None:
    async def wait() -> None:
        wide = Settings(runtime="ray", ray_num_cpus=64)
        async with starting_gateway(nodes, "roomless", settings=wide, load_timeout_s=1.0) as dispatcher:
            await dispatcher.wait_until_ready()

    with pytest.raises(ModelLoadError, match=r"no node of the cluster had room for replica 0: num_cpus=64"):
        asyncio.run(wait())


def test_a_model_that_cannot_be_loaded_says_why(nodes: RayCluster) -> None:
    async def wait() -> None:
        async with starting_gateway(nodes, "broken", FakeEngineOptions(load_error="the file is torn")) as dispatcher:
            await dispatcher.wait_until_ready()

    with pytest.raises(ModelLoadError, match="the file is torn"):
        asyncio.run(wait())


@pytest.mark.parametrize("victim", ["replica", "actor"])
def test_a_request_runs_again_elsewhere_when_what_ran_it_is_killed(nodes: RayCluster, gate: Gate, victim: str) -> None:
    options = FakeEngineOptions(gate=str(gate.path))

    async def kill() -> tuple[list[str], int]:
        async with gateway(nodes, f"killed-{victim}", options, num_replicas=2) as dispatcher:
            asking = [asyncio.create_task(outcome(dispatcher.generate, f"prompt {index}")) for index in range(4)]
            await until(lambda: dispatcher.snapshot().running == 4)
            pid = pid_of(dispatcher)
            process = psutil.Process(pid) if victim == "replica" else psutil.Process(pid).parent()
            process.send_signal(signal.SIGKILL)
            await until(lambda: dispatcher.snapshot().restarts > 0)
            gate.open()
            outcomes = await asyncio.gather(*asking)
            await until(lambda: all(each.state == "ready" for each in dispatcher.snapshot().replicas))
            return outcomes, dispatcher.snapshot().restarts

    outcomes, restarts = asyncio.run(kill())

    assert outcomes == ["made"] * 4
    assert restarts >= 1


def test_replicas_come_while_requests_wait_and_go_when_they_are_needed_no_more(nodes: RayCluster, gate: Gate) -> None:
    options = FakeEngineOptions(gate=str(gate.path))
    scaling = Scaling(min_replicas=1, max_replicas=2, interval_s=0.1, shrink_after_s=0.5)

    async def scale() -> tuple[list[str], int]:
        launch = {"max_concurrent_requests": 1, "scaling": scaling}
        async with gateway(nodes, "scaling", options, **launch) as dispatcher:
            asking = [asyncio.create_task(outcome(dispatcher.generate, f"prompt {index}")) for index in range(4)]
            await until(lambda: dispatcher.snapshot().running == 2)
            gate.open()
            outcomes = await asyncio.gather(*asking)
            await until(lambda: len(dispatcher.snapshot().replicas) == 1)
            return outcomes, dispatcher.snapshot().counters.transformer_calls

    outcomes, num_calls = asyncio.run(scale())

    assert outcomes == ["made"] * 4
    assert num_calls == 16


def test_a_model_is_fetched_once_a_node_and_only_the_fetcher_is_told_the_token(
    nodes: RayCluster, shared_cluster: SharedCluster, tmp_path: Path
) -> None:
    here = tmp_path / "models--acme--tiny-flux" / "snapshots" / SHA
    processes: list[psutil.Process] = []

    async def serve() -> set[object]:
        variables = {"HF_TOKEN": GOOD_TOKEN}
        async with gateway(nodes, "hub", folder=str(here), variables=variables, num_replicas=4) as dispatcher:
            processes.extend(psutil.Process().children(recursive=True))
            seen.extend(what_shows(process) for process in processes)
            await dispatcher.generate(fake_request())
            return {each.whereabouts["node"] for each in dispatcher.snapshot().replicas}

    seen: list[str] = []
    num_nodes = len(asyncio.run(serve()))

    weights = [name for name in shared_cluster.hub.downloads if name.endswith(".safetensors")]
    assert num_nodes == 2
    assert weights
    assert {name: weights.count(name) for name in weights} == dict.fromkeys(weights, 2)
    logs = Path(ray.worker.global_worker.node.get_session_dir_path())
    assert not [path for path in logs.rglob("*") if path.is_file() and GOOD_TOKEN.encode() in path.read_bytes()]
    assert any("replica.process" in each or "fakes.py" in each for each in seen)
    assert not any(GOOD_TOKEN in each for each in seen)


def test_a_model_that_a_node_cannot_fetch_says_why(nodes: RayCluster, tmp_path: Path) -> None:
    here = tmp_path / "models--acme--absent" / "snapshots" / SHA

    async def wait() -> None:
        async with starting_gateway(nodes, "absent", folder=str(here)) as dispatcher:
            await dispatcher.wait_until_ready()

    with pytest.raises(DownloadError, match="acme/absent is not on http://"):
        asyncio.run(wait())


async def outcome(generate: Callable[..., Awaitable[object]], prompt: str = "a lamp") -> str:
    try:
        await generate(fake_request(prompt))
    except Overloaded:
        return "Overloaded"
    except SafelightError as error:
        return f"{type(error).__name__}: {error.message}"
    return "made"


def num_steps(*gateways: Dispatcher) -> int:
    """Taken, or not needed any more; each of them is told to one gateway."""
    counters = [each.snapshot().counters for each in gateways]
    return sum(each.steps_run + each.steps_saved for each in counters)


def num_places(dispatcher: Dispatcher) -> int:
    return dispatcher._replicas.members[0].num_places


def pid_of(dispatcher: Dispatcher) -> int:
    pid = dispatcher.snapshot().replicas[0].whereabouts["pid"]
    assert isinstance(pid, int)
    return pid
