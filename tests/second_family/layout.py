"""The torch-free half of the second family: one text encoder, and latents at a quarter of the size."""

from __future__ import annotations

from pathlib import Path

from safelight.errors import UnsupportedModel
from safelight.model.configs import config_of, read_size
from safelight.model.families.layout import Layout, WorkSizes
from safelight.model.spec import Guidance, ModelSpec, folder_name
from safelight.model.weight_files import Network

SCALE_FACTOR = 4


def check(folder: Path) -> None:
    path, config = config_of(folder, "transformer")
    _, autoencoder = config_of(folder, "vae")
    if read_size(path, config, "channels", 3) != read_size(path, autoencoder, "latent_channels", 4):
        raise UnsupportedModel(f"{path} has other channels than the vae")


def describe(folder: Path) -> ModelSpec:
    return ModelSpec(
        name=folder_name(folder),
        default_num_inference_steps=6,
        max_num_inference_steps=1000,
        default_width=32,
        default_height=32,
        min_size=16,
        max_size=128,
        max_pixels=128 * 128,
        size_multiple=SCALE_FACTOR,
        max_sequence_length=24,
        guidance=Guidance.TRAINED,
        default_guidance_scale=1.0,
    )


PLAIN = Layout(
    title="Plain",
    pipelines=("PlainPipeline",),
    networks=(
        Network("transformer", ("PlainTransformer",), "diffusion_pytorch_model"),
        Network("vae", ("AutoencoderTiny",), "diffusion_pytorch_model"),
        Network("text_encoder", ("T5EncoderModel",), "model"),
    ),
    without_weights=("scheduler", "tokenizer"),
    check=check,
    describe=describe,
    work=lambda _folder, spec: WorkSizes(
        encode=spec.max_pixels, denoise=spec.max_pixels, decode=spec.max_pixels, decode_tile=spec.max_pixels
    ),
    engine="tests.second_family.family",
)
