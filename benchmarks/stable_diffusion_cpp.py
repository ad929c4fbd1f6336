"""stable-diffusion.cpp on a GGUF file of FLUX.1's transformer, in a process of its own: the CPU seconds of a step.

    pip install stable-diffusion-cpp-python==0.4.7   (compiles for 5 minutes on two idle cores; needs cmake and g++)

It counts the blocks of the file, so that one of a few works. Without a T5 it takes 256 tokens of zeros, as many as
`benchmarks.precisions` draws; CLIP and the autoencoder are random, and stand outside of the step that is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from benchmarks.random_flux import plan_flux
from safelight.model.single_files import configs
from tests.single_files import as_bfl

PARTS = {"clip_l_path": "text_encoder", "vae_path": "vae"}
"""Argument of the library -> component."""
_SIDE = 256
_STEPS = 3
"""The first one is not measured: it makes room for all of them."""


@dataclass(frozen=True, slots=True)
class CppPeer:
    """A loaded model. `take_step` makes a picture of three steps, and returns the CPU seconds of one of the last."""

    process: subprocess.Popen[str]

    def take_step(self) -> float:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        return float(_answer(self.process)["step_cpu_s"])


@contextmanager
def cpp_peer(parts: Path, transformer: Path, threads: int) -> Iterator[CppPeer]:
    """`parts` as `write_parts` leaves them. Raises RuntimeError if it cannot start."""
    command = [sys.executable, "-m", "benchmarks.stable_diffusion_cpp", str(parts), str(transformer), str(threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _answer(process)
        yield CppPeer(process)
    finally:
        process.kill()
        process.wait()


def write_parts(folder: Path) -> None:
    """CLIP and the autoencoder, in the files that ComfyUI's users have."""
    planned = plan_flux("none")
    for component in PARTS.values():
        place = folder / component
        place.mkdir(parents=True)
        for _ in planned[component].write(place, "model"):
            pass
        save_file(as_bfl(folder, component, configs.COMPONENTS[component]), folder / f"{component}.safetensors")


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The library prints on its own beside it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise RuntimeError("stable-diffusion.cpp ended before it answered; its last words stand above")


def _serve(parts: Path, transformer: Path, threads: int) -> None:
    from stable_diffusion_cpp import StableDiffusion  # noqa: PLC0415  is not installed with the other peers

    model = StableDiffusion(
        diffusion_model_path=str(transformer),
        n_threads=threads,
        vae_decode_only=True,
        verbose=bool(os.environ.get("VERBOSE")),
        **{argument: str(parts / f"{component}.safetensors") for argument, component in PARTS.items()},
    )
    print("{}", flush=True)
    for _ in sys.stdin:
        ended: list[float] = []
        model.generate_image(
            prompt="a red apple",
            width=_SIDE,
            height=_SIDE,
            cfg_scale=1.0,
            sample_method="euler",
            sample_steps=_STEPS,
            progress_callback=lambda *_, ended=ended: ended.append(time.process_time()),
        )
        last = ended[-_STEPS:]
        print(json.dumps({"step_cpu_s": (last[-1] - last[0]) / (len(last) - 1)}), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
