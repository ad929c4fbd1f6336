"""Training state on disk: written whole or not at all, so that a run can be stopped at any moment."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import Tensor, nn

from training.sprite.networks.devices import device
from training.sprite.paths import work_folder


@dataclass(slots=True)
class Average:
    """The exponential moving average of a module's weights."""

    weights: dict[str, Tensor]
    decay: float

    @classmethod
    def of(cls, module: nn.Module, decay: float) -> "Average":
        return cls({name: value.detach().clone() for name, value in module.state_dict().items()}, decay)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Averages over a short past at first, so that where it began is soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)


def save(path: Path, state: dict[str, object]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load(path: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(path, map_location=device(), weights_only=True)
    return state


def resume_optimizers(chosen: list[torch.optim.Optimizer], state: dict[str, object]) -> None:
    """Their saved state, if there is one: weights restored from the package have none, and start afresh."""
    for optimizer, saved in zip(chosen, state.get("optimizers", ()), strict=False):
        optimizer.load_state_dict(saved)


@contextmanager
def stoppable() -> Iterator[Event]:
    """SIGTERM sets the event, so that the work in the block can save what it has; after it, the process ends."""
    asked = Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked.is_set():
        raise SystemExit("stopped; start it again to go on")


def log(stage: str, **figures: float | int | str) -> None:
    """One line of JSON in the stage's log, and the same on the terminal."""
    line = json.dumps({"stage": stage, "time": round(time.time()), **figures})
    print(line, flush=True)
    with (work_folder() / f"{stage}.jsonl").open("a") as file:
        file.write(line + "\n")
