"""What a replica does without: its first picture needs neither torch's compiler nor every network there is.

In a process of its own, which has imported nothing yet.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

PREPARE = """
import sys
from pathlib import Path

import safelight
from safelight.engine.later_imports import COMPILER, PACKAGES
from safelight.model.checkpoint import read_model_spec
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
from safelight.serving.messages import Load
from safelight.serving.replica.process import prepare_engine
from safelight.settings import EngineOptions

folder = Path(safelight.__file__).parent / "models" / "sprite"
prepared = prepare_engine(Load(folder=str(folder), spec=read_model_spec(folder), options=EngineOptions()))

def missing():
    return [each for each in (COMPILER, *PACKAGES) if type(sys.modules.get(each)).__name__ in ("_Later", "NoneType")]
"""


def run(code: str) -> list[str]:
    completed = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    return completed.stdout.splitlines()


def test_a_picture_is_made_without_them() -> None:
    code = """
        engine = prepared.load()
        generation = Generation(
            request=build_generation_request(engine.spec, id="a", prompt="a red ball"), image_index=0, arrived_at=0.0
        )
        engine.start(generation)
        while not generation.is_denoised:
            engine.step([generation])
        print(engine.decode(generation).shape)
        print(len(missing()))
    """
    assert run(code) == ["(256, 256, 3)", "5"]


def test_whoever_asks_for_them_gets_them() -> None:
    code = """
        import torch
        from transformers import BertModel
        from transformers.models import clip
        from diffusers import FluxPipeline, StableDiffusionXLPipeline
        from diffusers.models.autoencoders import AutoencoderKLWan
        from diffusers.models.transformers import SD3Transformer2DModel
        from diffusers.models.unets import UNet2DModel
        from torch._dynamo.utils import counters

        print(clip.CLIPTextModel.__name__)
        print(torch.compile(lambda number: number + 1, backend="eager")(torch.ones(1)).item())
        print([each for each in missing() if each != "transformers.models"])
    """
    assert run(code) == ["CLIPTextModel", "2.0", "[]"]
