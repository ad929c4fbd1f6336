"""The other half: a transformer of its own, T5 without pooled embeddings, and latents that are not packed by 2x2."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from safelight.engine.denoising.noise_schedulers import SchedulerConfig
from safelight.engine.devices import Precision
from safelight.engine.families.loading import load_parts
from safelight.engine.family import Family, Rows
from safelight.engine.low_rank import Lora, LowRank
from safelight.engine.prompts import PromptEmbeds
from safelight.model.spec import LoraFile, ModelSpec
from tests.second_family.layout import PLAIN, SCALE_FACTOR
from tests.tiny_flux import t5_tokenizer


class PlainTransformer(ModelMixin, ConfigMixin):
    """Every pixel of the latents asks the words and the other pixels."""

    @register_to_config
    def __init__(self, channels: int = 3, width: int = 32, text_width: int = 16) -> None:
        super().__init__()
        self.image_in, self.text_in = nn.Linear(channels, width), nn.Linear(text_width, width)
        self.time_in, self.place_in = nn.Linear(1, width), nn.Linear(2, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.image_out = nn.Linear(width, channels)

    def forward(self, latents: Tensor, times: Tensor, words: Tensor, places: Tensor) -> Tensor:
        pixels = self.image_in(latents) + self.place_in(places) + self.time_in(times[:, None])[:, None]
        both = torch.cat([self.text_in(words), pixels], dim=1)
        asked = nn.functional.scaled_dot_product_attention(self.query(pixels), self.key(both), self.value(both))
        return self.image_out(nn.functional.silu(pixels + asked))


CLASSES = (PlainTransformer, AutoencoderTiny, T5EncoderModel)


@dataclass(frozen=True, kw_only=True)
class Components:
    transformer: Any
    autoencoder: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: SchedulerConfig
    device: torch.device
    precision: Precision


def load(folder: Path, spec: ModelSpec, *, device: torch.device, precision: Precision) -> Family:
    parts = load_parts(folder, PLAIN, CLASSES, device=device, precision=precision, schedulers=spec.schedulers)
    return Plain(
        Components(
            transformer=parts.networks["transformer"],
            autoencoder=parts.networks["vae"],
            text_encoder=parts.networks["text_encoder"],
            tokenizer=parts.tokenizers["tokenizer"],
            scheduler_config=parts.scheduler_config,
            device=device,
            precision=precision,
        ),
        spec.max_sequence_length,
    )


class Plain:
    scale_factor = SCALE_FACTOR

    def __init__(self, components: Components, max_sequence_length: int) -> None:
        self.components = components
        self.latent_channels = int(components.transformer.config.channels)
        self._max_sequence_length = max_sequence_length

    def encode_prompt(self, prompt: str) -> PromptEmbeds:
        length = self._max_sequence_length
        num_tokens = len(self.components.tokenizer(prompt, verbose=False).input_ids)
        ids = self.components.tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        words = self.components.text_encoder(torch.as_tensor(ids).to(self.components.device))[0]
        return PromptEmbeds(
            tensors={"words": words.to(self.components.precision.computation)},
            num_tokens=min(num_tokens, length),
            not_read=(f"is cut at {length} tokens",) if num_tokens > length else (),
        )

    def pack(self, latents: Tensor) -> Tensor:
        return latents.flatten(2).transpose(1, 2)

    def unpack(self, packed: Tensor, height: int, width: int) -> Tensor:
        return packed.transpose(1, 2).unflatten(2, (height, width))

    def predict_velocity(self, rows: Rows) -> Tensor:
        sides = torch.linspace(-1, 1, rows.height), torch.linspace(-1, 1, rows.width)
        places = torch.cartesian_prod(*sides).to(rows.latents)
        velocity: Tensor = self.components.transformer(
            rows.latents, rows.timesteps / 1000, rows.prompts["words"], places
        )
        return velocity

    def read_lora(self, source: LoraFile) -> Lora:
        tensors = load_file(source.file)
        names = {name.rpartition(".")[0] for name in tensors}
        layers = {
            name: LowRank(down=tensors[f"{name}.down"], up=tensors[f"{name}.up"], bias=None, scaling=1.0)
            for name in names
        }
        return Lora(transformer=layers, text_encoder={})


def save_plain(folder: Path) -> Path:
    """Write a random checkpoint to `folder`."""
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    autoencoder = AutoencoderTiny(
        latent_channels=3,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    tokenizer = t5_tokenizer()
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0)
    )
    transformer = PlainTransformer()
    torch.set_rng_state(random_state)
    index: dict[str, object] = {"_class_name": PLAIN.pipelines[0]}
    components = {
        "transformer": transformer,
        "vae": autoencoder,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.0),
    }
    for name, component in components.items():
        component.save_pretrained(folder / name)
        index[name] = ["library", type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
