"""FLUX.1: which folders hold it, and what their configs tell of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.configs import config_of, named, read_json, read_size, shortened
from safelight.model.families.layout import TILE_SIZE, Layout, WorkSizes
from safelight.model.spec import Guidance, ModelSpec, folder_name
from safelight.model.weight_files import Network

PIPELINES = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
"""Their networks are the same. Those of Fill, Kontext and FLUX.2 begin with Flux too."""


def check(folder: Path) -> None:
    """Raises UnsupportedModel for what is built otherwise, ModelLoadError if a config is broken."""
    _check_counts(folder)
    _check_channels(folder)
    _check_rotation(folder)
    _check_widths(folder)
    _check_scale(folder)


def describe(folder: Path) -> ModelSpec:
    """As FLUX.1-dev where the transformer reads guidance, else as FLUX.1-schnell."""
    embedded = bool(read_json(folder / "transformer" / "config.json").get("guidance_embeds", False))
    return ModelSpec(
        name=folder_name(folder),
        default_num_inference_steps=28 if embedded else 4,
        max_num_inference_steps=100,
        default_width=1024,
        default_height=1024,
        min_size=64,
        max_size=2048,
        max_pixels=2048 * 2048,
        size_multiple=vae_scale_factor(folder) * 2,
        max_sequence_length=512 if embedded else 256,
        guidance=Guidance.EMBEDDED if embedded else Guidance.NONE,
        default_guidance_scale=3.5 if embedded else 0.0,
    )


def work(folder: Path, spec: ModelSpec) -> WorkSizes:
    """From the widths: of the tokens between two layers of a single block, of the pixels between two convolutions."""
    path, config = config_of(folder, "transformer")
    width = read_size(path, config, "attention_head_dim", 128) * read_size(path, config, "num_attention_heads", 24)
    tokens = spec.max_pixels // spec.size_multiple**2 + spec.max_sequence_length
    encoder_path, encoder = config_of(folder, "text_encoder_2")
    encoder_width = read_size(encoder_path, encoder, "d_model", 512) + read_size(encoder_path, encoder, "d_ff", 2048)
    return WorkSizes(
        encode=_ALIVE_IN_ENCODER * encoder_width * spec.max_sequence_length,
        denoise=_ALIVE_IN_BLOCK * width * tokens,
        decode=_ALIVE_IN_DECODER * spec.max_pixels,
        decode_tile=_ALIVE_IN_DECODER * min(spec.max_pixels, TILE_SIZE**2) + 3 * spec.max_pixels,
    )


_ALIVE_IN_ENCODER = 4
_ALIVE_IN_BLOCK = 20
"""Times the width, for each token: the stream, its norm, q, k and v, the four times wider layer before and after."""
_ALIVE_IN_DECODER = 1024
"""For each pixel of the picture: four maps of 256 channels."""


def vae_scale_factor(folder: Path) -> int:
    """Pixels of the picture to a pixel of the latents. Raises ModelLoadError."""
    config = read_json(folder / "vae" / "config.json")
    channels = config.get("block_out_channels") or config.get("decoder_block_out_channels")
    if not isinstance(channels, list) or not 0 < len(channels) <= _MOST_LEVELS:
        raise ModelLoadError(
            f"{folder / 'vae' / 'config.json'} has no list block_out_channels of 1 to {_MOST_LEVELS}: not an "
            "autoencoder config; download the checkpoint again"
        )
    return int(2 ** (len(channels) - 1))


_MOST_LEVELS = 10


def _check_channels(folder: Path) -> None:
    path, config = config_of(folder, "transformer")
    takes = read_size(path, config, "in_channels", 64)
    makes = read_size(path, config, "out_channels", takes) * read_size(path, config, "patch_size", 1) ** 2
    if takes != makes:
        raise UnsupportedModel(
            f"{path} takes {takes} channels and makes {makes}: a model such as FLUX.1 Fill or Control, which starts "
            f"from more than noise, and which Safelight does not serve; it serves those of a {PIPELINES[0]}"
        )


def _check_counts(folder: Path) -> None:
    """Of what is made as often as a config says, before its files are asked: one by one, until no memory is left."""
    for component, key, most in _COUNTS:
        path, config = config_of(folder, component)
        read_size(path, config, key, 1, most=most)
    schedule = folder / "scheduler" / "scheduler_config.json"
    if schedule.exists():
        read_size(named(folder, "scheduler/scheduler_config.json"), read_json(schedule), _STEPS, 1000, most=100_000)


_STEPS = "num_train_timesteps"
_COUNTS = (
    ("transformer", "num_layers", 1000),
    ("transformer", "num_single_layers", 1000),
    ("text_encoder", "num_hidden_layers", 1000),
    ("text_encoder", "max_position_embeddings", 100_000),
    ("text_encoder_2", "num_layers", 1000),
    ("vae", "layers_per_block", 100),
)
"""Component, key, and a number that none has."""


def _check_rotation(folder: Path) -> None:
    """Positions turn each attention head as a whole."""
    path, config = config_of(folder, "transformer")
    axes, head = read_axes(path, config), read_size(path, config, "attention_head_dim", 128)
    if sum(axes) != head:
        raise UnsupportedModel(
            f"{path} has axes_dims_rope {shortened(axes)}, which do not add up to its attention_head_dim, {head}; "
            "download the checkpoint again"
        )


def read_axes(path: str, config: Mapping[str, Any]) -> list[int]:
    """By how much each of three directions turns. Raises ModelLoadError."""
    axes = config.get("axes_dims_rope", [16, 56, 56])
    if not isinstance(axes, list) or len(axes) != 3 or any(not isinstance(axis, int) for axis in axes):
        raise ModelLoadError(
            f"{path} has axes_dims_rope {shortened(axes)}, not three numbers; download the checkpoint again"
        )
    return axes


def _check_scale(folder: Path) -> None:
    """Each latent is divided by it, and each picture would be NaN, or an error of torch's."""
    path, config = config_of(folder, "vae")
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor")
    if not _is_finite(scale) or scale <= 0:
        raise ModelLoadError(
            f"{path} has scaling_factor {shortened(scale)}, not a number above 0; download the checkpoint again"
        )
    if shift is not None and not _is_finite(shift):
        raise ModelLoadError(f"{path} has shift_factor {shortened(shift)}, not a number; download the checkpoint again")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < math.inf  # an int may be too large for isfinite


def _check_widths(folder: Path) -> None:
    """The transformer reads what the others make; where they do not fit every request would fail."""
    path, config = config_of(folder, "transformer")
    for key, default, component, its_key, its_default, factor in _WIDTHS:
        its_path, its_config = config_of(folder, component)
        wanted = read_size(path, config, key, default)
        of_text = its_config.get("text_config") or its_config
        given = read_size(its_path, of_text if isinstance(of_text, dict) else its_config, its_key, its_default) * factor
        if wanted != given:
            raise UnsupportedModel(
                f"{path} has {key} {wanted}, but {its_key} of the {component} makes {given}: the two do not belong "
                "together; download the checkpoint again"
            )


_WIDTHS = (
    ("in_channels", 64, "vae", "latent_channels", 4, 4),
    ("pooled_projection_dim", 768, "text_encoder", "hidden_size", 512, 1),
    ("joint_attention_dim", 4096, "text_encoder_2", "d_model", 512, 1),
)
"""What the transformer's config says; which component's config says the same, and how often. With their defaults."""


FLUX1 = Layout(
    title="FLUX.1",
    pipelines=PIPELINES,
    networks=(
        Network("transformer", ("FluxTransformer2DModel",), "diffusion_pytorch_model"),
        Network("vae", ("AutoencoderKL", "AutoencoderTiny"), "diffusion_pytorch_model"),
        Network("text_encoder", ("CLIPTextModel",), "model"),
        Network("text_encoder_2", ("T5EncoderModel",), "model"),
    ),
    without_weights=("scheduler", "tokenizer", "tokenizer_2"),
    check=check,
    describe=describe,
    work=work,
    engine="safelight.engine.families.flux1.family",
)
