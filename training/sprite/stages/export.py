"""Writes the package folder in the diffusers layout, from the averaged weights, whole or not at all.

`--share 0.5` goes half of the way from the folder's transformer to the trained one (https://arxiv.org/abs/2109.01903).
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from training.sprite.data.tokens import TEXT_LENGTH, clip_tokenizer, t5_tokenizer
from training.sprite.networks.autoencoder import CHECKPOINT as AUTOENCODER
from training.sprite.networks.autoencoder import load_autoencoder, new_autoencoder
from training.sprite.networks.network import CHECKPOINT as FLOW
from training.sprite.networks.network import load_transformer, new_transformer
from training.sprite.networks.text import CHECKPOINT as TEXT
from training.sprite.networks.text import TextEncoders, load_text_encoders
from training.sprite.paths import PACKAGE_FOLDER, work_folder
from training.sprite.stages.shards import Normalisation, is_normalised, normalisation

GUIDANCE_SCALE = 1.0
EXAMPLES = (
    "an astronaut riding a horse",
    "a fox next to a car in the snow",
    "a penguin on the beach",
    "three strawberries on a yellow background",
    "a robot left of a sunflower in a meadow",
    "a cat on top of a piano",
    "a dragon above a castle at night",
    "a wizard riding an elephant in the desert",
    "a big pizza on the moon",
    "two owls in the forest",
    "a bicycle in the city",
    "a teddy bear next to a candle in a room",
)
SIDECAR: dict[str, object] = {
    "name": "sprite",
    "version": "1",
    "license": "MIT",
    "description": "A small FLUX trained on scenes of emoji artwork: 256x256, 4 steps, at home on any CPU.",
    "default_num_inference_steps": 4,
    "max_num_inference_steps": 50,
    "default_width": 256,
    "default_height": 256,
    "min_size": 128,
    "max_size": 384,
    "max_sequence_length": TEXT_LENGTH,
    "guidance": "trained",
    "default_guidance_scale": GUIDANCE_SCALE,
    "examples": list(EXAMPLES),
}


def export(folder: Path = PACKAGE_FOLDER, share: float = 1.0) -> None:
    """A stage not trained yet is exported with random weights, so that the folder always loads."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline = build_pipeline()
    if share < 1:
        _go_part_of_the_way(folder, pipeline.transformer, share)
    pipeline.save_pretrained(part, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2"):
        _load_as_float32(part / name / "config.json")
    (part / "safelight.json").write_text(json.dumps(SIDECAR, indent=2) + "\n")
    _replace(folder, part)


def build_pipeline() -> FluxPipeline:
    encoders = load_text_encoders() if _is_trained(TEXT) else TextEncoders()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=_autoencoder().bfloat16(),
        text_encoder=encoders.clip.cpu().bfloat16(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoders.t5.cpu().bfloat16(),
        tokenizer_2=t5_tokenizer(),
        transformer=_transformer().cpu().bfloat16(),
    )


def _autoencoder() -> AutoencoderTiny:
    norm = normalisation() if is_normalised() else Normalisation(1.0, 0.0)
    trained = load_autoencoder() if _is_trained(AUTOENCODER) else new_autoencoder()
    trained.register_to_config(scaling_factor=norm.scale, shift_factor=norm.shift)
    return trained.to("cpu", memory_format=torch.contiguous_format)


def _transformer() -> FluxTransformer2DModel:
    return load_transformer() if _is_trained(FLOW) else new_transformer()


@torch.no_grad()
def _go_part_of_the_way(folder: Path, transformer: FluxTransformer2DModel, share: float) -> None:
    shipped = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).state_dict()
    for name, value in transformer.state_dict().items():
        value.copy_(torch.lerp(shipped[name], value.float(), share))


def _is_trained(checkpoint: str) -> bool:
    return (work_folder() / checkpoint).exists()


def _load_as_float32(config: Path) -> None:
    """In the type its config names is how transformers loads, and diffusers in float32: both must load alike."""
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def _replace(folder: Path, part: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the way from the folder's transformer")
    export(share=parser.parse_args().share)
    size = sum(file.stat().st_size for file in PACKAGE_FOLDER.rglob("*") if file.is_file())
    print(f"{PACKAGE_FOLDER}: {size / 1e6:.1f} MB")
