"""What a replica tells of its stages to whoever traces a request: when each began, and how long it took."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from safelight.picture.generation import Generation, Stage
from safelight.serving.counters import StageName

HOST, PID = socket.gethostname(), os.getpid()


class Timed(NamedTuple):
    """When something began, on the replica's clock, and the seconds that it took."""

    began_at: float
    seconds: float


def stage_of(name: StageName, generation: Generation, batch: Sequence[Generation], timed: Timed) -> Stage:
    """Of one generation; `batch` is what took a step together."""
    is_step = name == "step"
    return Stage(
        name=name,
        image_index=generation.image_index,
        began_s=timed.began_at - generation.arrived_at,
        seconds=timed.seconds,
        step=generation.step_index if is_step else 0,
        num_rows=sum(each.num_rows for each in batch) if is_step else 0,
        host=HOST,
        pid=PID,
    )
