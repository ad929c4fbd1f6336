"""What becomes of requests when parts of a cluster go: each gateway is a process, each node several.

The nodes of one cluster are used up one after another, so the order of these tests matters.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.e2e.online_client import OnlineClient, drawing, register_tiny_model
from tests.fakes import DEADLINE_S, STEP_S, FakeEngineOptions, Gate, expected_pixels, fake_request
from tests.online_server import online_server
from tests.ray.cluster import NODE, ray_cluster
from tests.ray.gateway import Gateway, running_gateway
from tests.ray.small_disk import MAY_MOUNT, node_on_small_disk
from tests.waiting import eventually

COLD = True
"""What runs on other nodes is not forked here: see `tests.warm`."""
NUM_ASKED = 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster({}, {}) as cluster:
        yield cluster


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def asking() -> Iterator[Callable[[Gateway], list[Future[httpx.Response]]]]:
    """Asks for pictures that are all different, each in a thread."""
    with ThreadPoolExecutor(NUM_ASKED) as threads:

        def ask(gateway: Gateway) -> list[Future[httpx.Response]]:
            return [threads.submit(gateway.ask, f"prompt {index}") for index in range(NUM_ASKED)]

        yield ask


def test_an_endpoints_deployment_is_updated_and_scaled_on_the_cluster_without_a_failed_request(
    cluster: Any, tmp_path: Path
) -> None:
    settings = {"SAFELIGHT_RUNTIME": "ray", "SAFELIGHT_RAY_ADDRESS": cluster.address}
    with online_server(tmp_path, settings) as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path)
        client.create_endpoint()
        assert client.deploy(instanceType="Standard_Any")["status"] == "Succeeded"
        client.create_endpoint(traffic={"blue": 100})
        with drawing(client, client.key()) as statuses:
            updates = [
                client.deploy(requestSettings={"requestTimeout": "PT100S"})["status"],
                client.deploy(requestSettings={"requestTimeout": "PT100S"}, instances=2)["status"],
                client.deploy(
                    requestSettings={"requestTimeout": "PT100S"},
                    scaleSettings={"scaleType": "TargetUtilization", "minInstances": 1, "maxInstances": 3},
                )["status"],
            ]
        shown = client.arm("GET", "/onlineEndpoints/flux/deployments/blue").json()["properties"]

    assert updates == ["Succeeded"] * 3
    assert set(statuses) == {200}
    assert shown["scaleSettings"] == {
        "scaleType": "TargetUtilization",
        "minInstances": 1,
        "maxInstances": 3,
        "pollingInterval": "PT1S",
        "targetUtilizationPercentage": 70,
    }
    assert shown["warnings"] == []


def test_no_request_waits_for_a_slow_node_that_a_quick_one_can_make_and_health_says_which_it_is(
    cluster: Any, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    with (
        node_beside(cluster, env_vars={STEP_S: "0.5"}) as slow,
        running_gateway(cluster.address, tmp_path / "g", replicas=3, ray_num_cpus=2) as gateway,
    ):
        gateway.wait_until_ready(3)
        there = next(each for each in gateway.replicas() if each["node"] == slow.node_id)

        def is_told() -> bool:
            assert {each.result().status_code for each in asking(gateway)} == {200}
            return str(told_of(gateway, there["name"])["detail"]).startswith("slow: takes ")

        eventually(is_told, timeout_s=2 * DEADLINE_S)
        psutil.Process(there["pid"]).send_signal(signal.SIGSTOP)  # whoever were sent there would wait for ever
        answers = [each.result() for each in asking(gateway)]
        psutil.Process(there["pid"]).send_signal(signal.SIGCONT)

        assert all(is_picture_of(each, f"prompt {index}") for index, each in enumerate(answers))


@pytest.mark.skipif(not MAY_MOUNT, reason="this machine lets no test mount a disk of its own")
def test_a_node_with_a_full_disk_serves_on_and_what_cannot_start_there_is_made_elsewhere(
    cluster: Any, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    with (
        node_on_small_disk(cluster.address, num_cpus=2) as disk,
        running_gateway(cluster.address, tmp_path / "g", replicas=3, ray_num_cpus=2) as gateway,
    ):
        gateway.wait_until_ready(3)
        others = {node.node_id for node in cluster.worker_nodes}
        (there,) = (each for each in gateway.replicas() if each["node"] not in others)
        disk.fill()
        served = [each.result() for each in asking(gateway)]
        psutil.Process(there["pid"]).parent().kill()  # Ray cannot even begin a log for the next one
        eventually(lambda: told_of(gateway, there["name"])["state"] == "starting")
        elsewhere = [each.result() for each in asking(gateway)]
        disk.clear()

        for answers in (served, elsewhere):
            assert all(is_picture_of(each, f"prompt {index}") for index, each in enumerate(answers))
        gateway.wait_until_ready(3)


@pytest.mark.skipif(not MAY_MOUNT, reason="this machine lets no test mount a disk of its own")
def test_what_never_ran_because_a_disk_is_full_runs_there_once_it_has_room(
    cluster: Any, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    replicas = {"replicas": 3, "ray_num_cpus": 2}
    with node_on_small_disk(cluster.address, num_cpus=2) as disk:
        with running_gateway(cluster.address, tmp_path / "a", **replicas) as gateway:
            gateway.wait_until_ready(3)
        disk.fill()
        with running_gateway(cluster.address, tmp_path / "b", **replicas) as gateway:
            gateway.wait_until_ready(2)
            eventually(lambda: len(failed(gateway)) == 1, timeout_s=4 * DEADLINE_S)
            elsewhere = [each.result() for each in asking(gateway)]

            assert "room on the disk" in failed(gateway)[0]["detail"]
            assert all(is_picture_of(each, f"prompt {index}") for index, each in enumerate(elsewhere))
            disk.clear()
            gateway.wait_until_ready(3)


def test_every_request_is_answered_with_its_own_picture_when_a_node_dies(
    cluster: Any, gate: Gate, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    node = cluster.add_node(**NODE)
    options = FakeEngineOptions(gate=str(gate.path))
    with running_gateway(cluster.address, tmp_path / "g", options, replicas=3) as gateway:
        gateway.wait_until_ready(3)
        asked = asking(gateway)
        eventually(lambda: num_running(gateway) == NUM_ASKED)

        cluster.remove_node(node, allow_graceful=False)
        eventually(lambda: sum(each["state"] == "ready" for each in gateway.replicas()) < 3)
        gate.open()
        answers = [each.result() for each in asked]

        assert [each.status_code for each in answers] == [200] * NUM_ASKED
        assert all(is_picture_of(each, f"prompt {index}") for index, each in enumerate(answers))
        gateway.wait_until_ready(3)  # on the nodes that are left


@pytest.mark.parametrize("fault", ["killed", "stands still"])
def test_what_a_gateway_that_is_gone_asked_for_is_dropped_and_others_keep_the_replica(
    cluster: Any, gate: Gate, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]], fault: str
) -> None:
    options = FakeEngineOptions(gate=str(gate.path))
    limits = {"max_concurrent_requests_per_instance": NUM_ASKED, "max_queued_requests": 0}
    with (
        running_gateway(cluster.address, tmp_path / "a", options, **limits) as one,
        running_gateway(cluster.address, tmp_path / "b", options, **limits) as other,
        ExitStack() as stack,
    ):
        one.wait_until_ready()
        other.wait_until_ready()
        pid = one.replicas()[0]["pid"]
        asked = asking(one)
        eventually(lambda: num_running(one) == NUM_ASKED)
        eventually(lambda: not is_admitted(other))  # they have all places

        one.process.send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        eventually(lambda: is_admitted(other))  # within actor.SILENCE_S
        gate.open()
        assert is_picture_of(admitted(other, "after it"), "after it")

        if fault == "killed":
            assert all(each.exception() is not None or each.result().status_code == 429 for each in asked)
            back = stack.enter_context(running_gateway(cluster.address, tmp_path / "c", options, **limits))
        else:
            back = one
            one.process.send_signal(signal.SIGCONT)
            assert {each.result().status_code for each in asked} <= {200, 429, 503}
            eventually(lambda: one.ask("again").status_code == 200)
        back.wait_until_ready()
        assert [each.replicas()[0]["pid"] for each in (back, other)] == [pid, pid]


def test_a_replica_that_stands_still_is_started_again_and_its_requests_run_elsewhere(
    cluster: Any, gate: Gate, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    options = FakeEngineOptions(gate=str(gate.path))
    with running_gateway(cluster.address, tmp_path / "g", options, replicas=2) as gateway:
        gateway.wait_until_ready(2)
        asked = asking(gateway)
        eventually(lambda: num_running(gateway) == NUM_ASKED)
        replica = psutil.Process(gateway.replicas()[0]["pid"])
        actor = replica.parent()

        actor.send_signal(signal.SIGSTOP)  # its process, and with it the way to the replica's own
        gate.open()
        answers = [each.result() for each in asked]

        assert [each.status_code for each in answers] == [200] * NUM_ASKED
        assert all(is_picture_of(each, f"prompt {index}") for index, each in enumerate(answers))
        gateway.wait_until_ready(2)
        eventually(lambda: not actor.is_running() and not replica.is_running())


def test_requests_go_on_while_the_head_is_away_and_after_it_has_come_back(
    cluster: Any, gate: Gate, tmp_path: Path, asking: Callable[[Gateway], list[Future[httpx.Response]]]
) -> None:
    options = FakeEngineOptions(gate=str(gate.path))
    with running_gateway(cluster.address, tmp_path / "g", options) as gateway:
        gateway.wait_until_ready()
        asked = asking(gateway)
        eventually(lambda: num_running(gateway) == NUM_ASKED)

        cluster.head_node.kill_gcs_server()
        gate.open()
        answers = [each.result() for each in asked]
        while_away = gateway.ask("while it is away")
        cluster.head_node.start_gcs_server()
        afterwards = gateway.ask("afterwards")

        assert [each.status_code for each in answers] == [200] * NUM_ASKED
        assert is_picture_of(while_away, "while it is away")
        assert is_picture_of(afterwards, "afterwards")
        pid = gateway.replicas()[0]["pid"]
        psutil.Process(pid).parent().kill()
        eventually(lambda: gateway.replicas()[0].get("pid") not in (pid, None), timeout_s=120)
        gateway.wait_until_ready()  # the head has known what to start again
        assert is_picture_of(gateway.ask("started again"), "started again")


@contextmanager
def node_beside(cluster: Any, **options: Any) -> Iterator[Any]:
    """One more, for as long as the block lasts."""
    node = cluster.add_node(**NODE, **options)
    try:
        yield node
    finally:
        cluster.remove_node(node)


def failed(gateway: Gateway) -> list[Any]:
    return [each for each in gateway.replicas() if each["state"] == "failed"]


def told_of(gateway: Gateway, name: str) -> Any:
    return next(each for each in gateway.replicas() if each["name"] == name)


def num_running(gateway: Gateway) -> float:
    text = gateway.client.get("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("safelight_running"))


def is_admitted(gateway: Gateway) -> bool:
    """Whether a request is not refused at the door; it is not waited for."""
    try:
        return gateway.ask(timeout_s=3).status_code != 429
    except httpx.TimeoutException:
        return True


def admitted(gateway: Gateway, prompt: str) -> httpx.Response:
    """The answer once there is a place: what was dropped holds one to the end of its step."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(gateway.ask(prompt))
        return answers[-1].status_code != 429

    eventually(is_answered)
    return answers[-1]


def is_picture_of(answer: httpx.Response, prompt: str) -> bool:
    assert answer.status_code == 200, answer.text
    pixels = np.asarray(Image.open(BytesIO(answer.content)))
    return bool((pixels == expected_pixels(fake_request(prompt), 7)).all())
