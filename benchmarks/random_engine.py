"""FLUX.1-schnell at its true size with random weights that are made where they are used: nothing lies on a disk.

For measuring only: what it paints is noise. Any precision and offload of the engine runs with it, and any device.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gguf
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from safelight.engine.batch_invariance import make_batch_invariant
from safelight.engine.devices import Precision
from safelight.engine.engine import Engine
from safelight.engine.families.flux1.components import Components
from safelight.engine.families.flux1.family import Flux1
from safelight.engine.weights.files import FileTensor
from safelight.engine.weights.lean_loading import load_network
from safelight.engine.weights.placement import place, waiting_place
from safelight.model.spec import Guidance, ModelSpec
from safelight.settings import EngineOptions
from tests.tiny_flux import clip_tokenizer, t5_tokenizer

SPEC = ModelSpec(
    name="random-flux",
    default_num_inference_steps=4,
    max_num_inference_steps=50,
    default_width=1024,
    default_height=1024,
    min_size=64,
    max_size=2048,
    max_pixels=2048 * 2048,
    size_multiple=16,
    max_sequence_length=256,
    guidance=Guidance.NONE,
    default_guidance_scale=0.0,
)
T5 = {
    "d_model": 4096,
    "d_kv": 64,
    "num_heads": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.0,
}
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}


class RandomTensors(Mapping[str, FileTensor]):
    """The parameters of a network, each made anew when it is asked for, and always the same."""

    def __init__(self, network: nn.Module, device: torch.device, quant_type: str | None = None) -> None:
        self._shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
        self._device = device
        self._quant_type = None if quant_type is None else gguf.GGMLQuantizationType[quant_type]

    def __getitem__(self, name: str) -> FileTensor:
        shape = self._shapes[name]
        if self._quant_type is not None and len(shape) == 2 and "blocks." in name:
            return self._blocks(name, shape)
        values = self._draw(name, shape).to(torch.bfloat16)
        return FileTensor(place=name, values=values, shape=shape, dtype="BF16")

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def _draw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """As wide as a trained layer's; 1 for what a norm multiplies by."""
        if "norm" in name and len(shape) == 1 and name.endswith("weight"):
            return torch.ones(shape, device=self._device)
        generator = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(shape, generator=generator, device=self._device)
        return drawn.mul_(0.5 / max(shape[-1], 1) ** 0.5)

    def _blocks(self, name: str, shape: tuple[int, ...]) -> FileTensor:
        assert self._quant_type is not None
        block, block_bytes = gguf.GGML_QUANT_SIZES[self._quant_type]
        generator = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        blocks = torch.randint(
            0,
            256,
            (shape[0], shape[1] // block, block_bytes),
            generator=generator,
            device=self._device,
            dtype=torch.uint8,
        )
        scale = torch.tensor([0.01 / shape[1] ** 0.5], dtype=torch.float16).view(torch.uint8)
        blocks[:, :, :2] = scale.to(self._device)  # each of these types begins with its scale, as fp16
        return FileTensor(
            place=name, values=blocks.flatten(1), shape=shape, dtype=self._quant_type.name, quant_type=self._quant_type
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the networks; those of FLUX.1-schnell unless told otherwise."""

    transformer: Mapping[str, Any] = field(default_factory=dict)
    t5: Mapping[str, Any] = field(default_factory=dict)
    clip: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)


REDUCED = Sizes(
    transformer={"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 128},
    t5={"d_model": 128, "num_heads": 2, "d_ff": 256, "num_layers": 1, "vocab_size": 200},
    clip={"num_hidden_layers": 1, "vocab_size": 200, "intermediate_size": 64},
    vae={"block_out_channels": [32] * 4, "layers_per_block": 1},
)
"""To see on a CPU that everything runs."""


def random_engine(
    device: torch.device, precision: Precision, *, sizes: Sizes | None = None, quant_type: str | None = None
) -> Engine:
    """An engine of random weights; `quant_type` is one of GGUF's for the transformer."""
    sizes = sizes or Sizes()
    makers: dict[str, Callable[[], Any]] = {
        "transformer": partial(FluxTransformer2DModel, **sizes.transformer),
        "text_encoder_2": lambda: T5EncoderModel(T5Config(**{**T5, **sizes.t5})),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**{**CLIP, **sizes.clip})),
        "vae": lambda: AutoencoderKL(**{**VAE, **sizes.vae}),
    }
    networks = {}
    for name, make in makers.items():
        with init_empty_weights(include_buffers=False):
            shape = make()
        networks[name] = load_network(
            make,
            RandomTensors(shape, device, quant_type if name == "transformer" else None),
            quantization=precision.choice.quantization_of(name),
            dtype=precision.computation,
            device=waiting_place(name, precision.choice, device),
        )
    if device.type == "cpu":
        make_batch_invariant(networks["transformer"])
    place(networks, precision.choice, device)
    components = Components(
        transformer=networks["transformer"],
        autoencoder=networks["vae"],
        text_encoder=networks["text_encoder"],
        text_encoder_2=networks["text_encoder_2"],
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        scheduler_config={"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0},
        device=device,
        precision=precision,
    )
    family = Flux1(components, scale_factor=8, max_sequence_length=SPEC.max_sequence_length)
    return Engine(SPEC, family, EngineOptions())
