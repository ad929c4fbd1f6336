from __future__ import annotations

import asyncio

import pytest

from safelight.serving.scaling import Autoscaler, Scaling
from tests.fakes import until

SCALING = Scaling(min_replicas=1, max_replicas=8, target_utilization=0.5, interval_s=0.001, shrink_after_s=0.05)


@pytest.mark.parametrize(("demand", "wanted"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (16, 8), (1000, 8)])
def test_there_are_as_many_replicas_as_keep_their_places_so_full(demand: int, wanted: int) -> None:
    assert SCALING.wanted(demand=demand, places_each=4) == wanted


class Demand:
    """Replicas that only count."""

    places_each = 4

    def __init__(self) -> None:
        self.num_running = 0
        self.asked_for: list[int] = []

    def scale(self, num_replicas: int) -> None:
        self.asked_for.append(num_replicas)


def test_what_waits_counts_as_what_runs_and_fewer_replicas_come_later() -> None:
    async def run() -> list[int]:
        demand, waiting = Demand(), 6
        scaler = asyncio.create_task(Autoscaler(SCALING, demand, lambda: waiting).run())
        demand.num_running = 4
        await until(lambda: len(demand.asked_for) > 3)
        waiting = demand.num_running = 0
        await until(lambda: demand.asked_for[-1] == 1)
        scaler.cancel()
        return demand.asked_for

    asked_for = asyncio.run(run())

    assert asked_for[0] == 5
    assert sorted(set(asked_for), reverse=True) == [5, 1]
