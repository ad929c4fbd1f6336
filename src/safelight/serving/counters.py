"""What a replica has done since it started, as numbers that only grow: they add up over replicas and restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StageName = Literal["queue", "encode", "step", "preview", "decode", "image_encode"]


@dataclass(frozen=True, slots=True)
class StageTime:
    """How often a stage ran, and the seconds it took in all."""

    count: int = 0
    seconds: float = 0.0

    def __add__(self, other: StageTime) -> StageTime:
        return StageTime(self.count + other.count, self.seconds + other.seconds)

    def __neg__(self) -> StageTime:
        return StageTime(-self.count, -self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Totals of one replica, or of several. `denoise` counts transformer calls, the other stages images."""

    transformer_calls: int = 0
    steps_run: int = 0
    """Steps of single images: a call for a batch of four is four."""
    steps_saved: int = 0
    """Steps that need not run because their request was cancelled, expired, or failed."""
    prompt_cache_hits: int = 0
    prompt_cache_misses: int = 0
    replica_restarts: int = 0
    """Of the process; it is counted where that is started again, and not by itself."""
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Rows of a batch -> how many batches had that many."""
    stages: Mapping[StageName, StageTime] = field(default_factory=dict)

    def __add__(self, other: Counters) -> Counters:
        stages = {name: self.stages.get(name, StageTime()) for name in (*self.stages, *other.stages)}
        return Counters(
            transformer_calls=self.transformer_calls + other.transformer_calls,
            steps_run=self.steps_run + other.steps_run,
            steps_saved=self.steps_saved + other.steps_saved,
            prompt_cache_hits=self.prompt_cache_hits + other.prompt_cache_hits,
            prompt_cache_misses=self.prompt_cache_misses + other.prompt_cache_misses,
            replica_restarts=self.replica_restarts + other.replica_restarts,
            batch_sizes={
                rows: self.batch_sizes.get(rows, 0) + other.batch_sizes.get(rows, 0)
                for rows in (*self.batch_sizes, *other.batch_sizes)
            },
            stages={name: time + other.stages.get(name, StageTime()) for name, time in stages.items()},
        )

    def __sub__(self, before: Counters) -> Counters:
        """What was counted since."""
        return self + Counters(
            transformer_calls=-before.transformer_calls,
            steps_run=-before.steps_run,
            steps_saved=-before.steps_saved,
            prompt_cache_hits=-before.prompt_cache_hits,
            prompt_cache_misses=-before.prompt_cache_misses,
            replica_restarts=-before.replica_restarts,
            batch_sizes={rows: -number for rows, number in before.batch_sizes.items()},
            stages={name: -time for name, time in before.stages.items()},
        )
