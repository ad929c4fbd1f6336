from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from safelight.serving.backends.protocol import Replica
from safelight.serving.paces import KNOWN_FOR_S, Paces


@dataclass(eq=False)
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def replicas() -> list[Replica]:
    return [cast("Replica", object()) for _ in range(3)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paces(replicas: list[Replica], clock: Clock) -> Paces:
    return Paces(lambda: replicas, clock)


def observe(paces: Paces, clock: Clock, replica: Replica, *seconds: float, work: float = 1.0) -> None:
    for each in seconds:
        clock.now += 1
        paces.observe(replica, each, work)


def test_a_replica_is_slow_beside_the_quickest_by_as_much_as_it_takes_longer(
    paces: Paces, clock: Clock, replicas: list[Replica]
) -> None:
    one, other, third = replicas
    observe(paces, clock, one, 1.0, 1.0, 1.0)
    observe(paces, clock, other, 2.0, 2.0, 2.0)
    observe(paces, clock, third, 8.0, 8.0, 8.0)

    assert [paces.slowness(each) for each in replicas] == [1.0, 1.0, 8.0]


def test_large_requests_make_no_replica_slow(paces: Paces, clock: Clock, replicas: list[Replica]) -> None:
    observe(paces, clock, replicas[0], 1.0, 1.0, 1.0)
    observe(paces, clock, replicas[1], 50.0, 50.0, 50.0, work=50.0)

    assert paces.slowness(replicas[1]) == 1.0


def test_the_first_request_after_a_start_makes_no_replica_slow(
    paces: Paces, clock: Clock, replicas: list[Replica]
) -> None:
    observe(paces, clock, replicas[0], 1.0, 1.0, 1.0)
    observe(paces, clock, replicas[1], 50.0, 1.0, 1.0)

    assert paces.slowness(replicas[1]) == 1.0


def test_one_that_was_slow_a_while_ago_is_tried_again(paces: Paces, clock: Clock, replicas: list[Replica]) -> None:
    observe(paces, clock, replicas[0], 1.0, 1.0, 1.0)
    observe(paces, clock, replicas[1], 8.0, 8.0, 8.0)
    assert paces.slowness(replicas[1]) == 8.0

    clock.now += KNOWN_FOR_S
    observe(paces, clock, replicas[0], 1.0)

    assert paces.slowness(replicas[1]) == 1.0


def test_one_that_is_gone_is_no_measure_for_the_others(paces: Paces, clock: Clock, replicas: list[Replica]) -> None:
    observe(paces, clock, replicas[0], 1.0, 1.0, 1.0)
    observe(paces, clock, replicas[1], 8.0, 8.0, 8.0)

    del replicas[0]
    observe(paces, clock, replicas[0], 8.0)

    assert paces.slowness(replicas[0]) == 1.0
