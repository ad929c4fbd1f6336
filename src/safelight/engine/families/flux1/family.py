"""FLUX.1 as the engine asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from safelight.engine.devices import Precision
from safelight.engine.families.flux1.components import CLASSES, Components, load_components
from safelight.engine.families.flux1.latents import make_image_ids, pack_latents, unpack_latents
from safelight.engine.families.flux1.loras.files import read_lora
from safelight.engine.families.flux1.text import encode_prompt
from safelight.engine.families.loading import try_prompt
from safelight.engine.family import Family, Rows
from safelight.engine.low_rank import Lora
from safelight.engine.lru_cache import LruCache
from safelight.engine.prompts import PromptEmbeds
from safelight.model.families.flux1 import vae_scale_factor
from safelight.model.spec import LoraFile, ModelSpec

_IDS_BYTES = 8 * 1024**2
"""Of 160 sizes of 1024x1024."""
__all__ = ["CLASSES", "Flux1", "load"]


def load(folder: Path, spec: ModelSpec, *, device: torch.device, precision: Precision) -> Family:
    """Raises UnsupportedModel or ModelLoadError naming the file and the remedy."""
    components = load_components(folder, device=device, precision=precision, schedulers=spec.schedulers)
    family = Flux1(components, scale_factor=vae_scale_factor(folder), max_sequence_length=spec.max_sequence_length)
    try_prompt(folder, family.encode_prompt, components.text_encoder_2)
    return family


class Flux1:
    """A loaded FLUX.1 checkpoint."""

    def __init__(self, components: Components, *, scale_factor: int, max_sequence_length: int) -> None:
        self.components = components
        self.latent_channels = int(components.transformer.config.in_channels) // 4
        self.scale_factor = scale_factor
        self._max_sequence_length = max_sequence_length
        self._ids: LruCache[tuple[int, ...], Tensor] = LruCache(_IDS_BYTES)

    def encode_prompt(self, prompt: str) -> PromptEmbeds:
        return encode_prompt(self.components, prompt, max_sequence_length=self._max_sequence_length)

    def pack(self, latents: Tensor) -> Tensor:
        return pack_latents(latents)

    def unpack(self, packed: Tensor, height: int, width: int) -> Tensor:
        return unpack_latents(packed, height, width)

    def predict_velocity(self, rows: Rows) -> Tensor:
        transformer = self.components.transformer
        text_length = rows.prompts["prompt_embeds"].shape[1]
        velocity: Tensor = transformer(
            hidden_states=rows.latents,
            # The transformer multiplies by 1000 again, in its own dtype.
            timestep=rows.timesteps / 1000,
            guidance=rows.guidance_scale if transformer.config.guidance_embeds else None,
            pooled_projections=rows.prompts["pooled_prompt_embeds"],
            encoder_hidden_states=rows.prompts["prompt_embeds"],
            txt_ids=self._kept_ids((text_length,), lambda: torch.zeros(text_length, 3)),
            img_ids=self._kept_ids((rows.height, rows.width), lambda: make_image_ids(rows.height, rows.width)),
            return_dict=False,
        )[0]
        return velocity

    def _kept_ids(self, key: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        """On the model's device; brought there once for each size, not in each step."""
        ids = self._ids.get(key)
        if ids is None:
            ids = make().to(self.components.device)
            self._ids.put(key, ids)
        return ids

    def read_lora(self, source: LoraFile) -> Lora:
        return read_lora(source, self.components)
