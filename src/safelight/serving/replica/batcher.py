"""Which generations take the next step together. Plain Python over ids, shapes and counts; it never sees a tensor.

The batch is rebuilt at every step. Generations with equal `batch_key` can share it; a key is one size, and sizes share
the device by start-time fair queueing: each key has a virtual time, charged with the rows x pixels that it was given,
and the key that is furthest behind goes next. A key that becomes active starts at the present, never in the past, so it
can neither save up turns nor lose any. Inside a key the order is first come, first served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from safelight.picture.generation import Generation
from safelight.serving.replica.step_costs import StepCosts

BatchKey = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Lane:
    """The generations of one key, in order of arrival (a dict, for removal in constant time)."""

    virtual_time: int
    generations: dict[Generation, None] = field(default_factory=dict)


class StepBatcher:
    """Holds the started generations that still have steps to take."""

    def __init__(self, *, max_batch_size: int) -> None:
        self._costs = StepCosts(max_batch_size)
        self._lanes: dict[BatchKey, _Lane] = {}
        self._idle_times: dict[BatchKey, int] = {}
        """Virtual times of lanes that ran empty while ahead of the present."""
        self._now = 0
        """Virtual time of the lane that was served last."""

    def __len__(self) -> int:
        return sum(len(lane.generations) for lane in self._lanes.values())

    def add(self, generation: Generation) -> None:
        key = generation.batch_key
        if key not in self._lanes:
            self._lanes[key] = _Lane(max(self._now, self._idle_times.pop(key, 0)))
        self._lanes[key].generations[generation] = None

    def next_batch(self) -> list[Generation]:
        """The generations that take the next step; empty if there are none."""
        if not self._lanes:
            return []
        lane = min(self._lanes.values(), key=lambda each: each.virtual_time)
        batch = self._fill(lane)
        self._now = lane.virtual_time
        lane.virtual_time += sum(_cost(generation) for generation in batch)
        self._idle_times = {key: time for key, time in self._idle_times.items() if time > self._now}
        return batch

    def observe(self, batch: Sequence[Generation], seconds: float) -> None:
        """Learn what a step of this batch took; one that failed tells nothing."""
        if any(generation.error is not None for generation in batch):
            return
        self._costs.observe(batch[0].batch_key, sum(generation.num_rows for generation in batch), seconds)

    def retire(self, batch: Sequence[Generation]) -> list[Generation]:
        """Remove and return those of a batch that need no further step, or cannot take one."""
        retired = [generation for generation in batch if generation.is_denoised or generation.error is not None]
        for generation in retired:
            self.drop(generation)
        return retired

    def drop(self, generation: Generation) -> None:
        """Forget a generation; one that is not here is no error."""
        lane = self._lanes.get(generation.batch_key)
        if lane is None:
            return
        lane.generations.pop(generation, None)
        if not lane.generations:
            del self._lanes[generation.batch_key]
            self._idle_times[generation.batch_key] = lane.virtual_time

    def _fill(self, lane: _Lane) -> list[Generation]:
        """First come, first served, up to the cap. A later one that fits takes the rows that the next one in line does
        not fit into: it delays nobody, because the next step's batch is filled from the front again.
        """
        batch: list[Generation] = []
        free_rows = self._costs.cap(next(iter(lane.generations)).batch_key)
        for generation in lane.generations:
            if generation.num_rows <= free_rows or not batch:
                batch.append(generation)
                free_rows -= generation.num_rows
            if free_rows <= 0:
                break
        return batch


def _cost(generation: Generation) -> int:
    return generation.num_rows * generation.request.width * generation.request.height
