"""A prompt becomes embeddings: T5 for its words, CLIP (pooled) for its gist; both padded as FluxPipeline pads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safelight.engine.families.flux1.components import Components
from safelight.engine.low_rank import Addition, adapted
from safelight.engine.prompt_cache import PromptCache, PromptEmbeds
from safelight.picture.generation import GenerationRequest


class PromptEncoder:
    """Encodes prompts with the checkpoint's two text encoders, and remembers recent ones."""

    def __init__(self, components: Components, *, max_sequence_length: int, cache: PromptCache) -> None:
        self._components = components
        self._max_sequence_length = max_sequence_length
        self._clip_length = min(
            int(components.tokenizer.model_max_length), int(components.text_encoder.config.max_position_embeddings)
        )
        self.cache = cache

    def encode_request(
        self, request: GenerationRequest, additions: Sequence[Addition] = ()
    ) -> tuple[tuple[PromptEmbeds, ...], list[str]]:
        """The prompt's embeddings, after them the negative prompt's if guidance runs; and what could not be read.

        `additions` are the layers for CLIP of the request's LoRAs, in their order.
        """
        texts = {"prompt": request.prompt}
        if request.is_guided and request.negative_prompt is not None:
            texts["negative_prompt"] = request.negative_prompt
        adapters = tuple(
            (weight.name, weight.scale) for weight, (layers, _) in zip(request.loras, additions, strict=True) if layers
        )
        prompts = {}
        with adapted(self._components.text_encoder, [additions]):
            for field, text in texts.items():
                prompts[field] = self._encode_once(text, adapters)
        warnings = [warning for field, embeds in prompts.items() for warning in self._truncations(field, embeds)]
        return tuple(prompts.values()), warnings

    def _encode_once(self, prompt: str, adapters: tuple[tuple[str, float], ...]) -> PromptEmbeds:
        """From the cache if it is there."""
        key = (prompt, self._max_sequence_length, adapters)
        embeds = self.cache.get(key)
        if embeds is None:
            embeds = self._encode(prompt)
            self.cache.put(key, embeds)
        return embeds

    def _truncations(self, field: str, embeds: PromptEmbeds) -> list[str]:
        """One sentence for each encoder that did not read the whole prompt; `field` is prompt or negative_prompt."""
        warnings = []
        if embeds.num_dropped_tokens:
            warnings.append(
                f"{field} is too long: the T5 encoder read its first {embeds.num_tokens} tokens, and the other "
                f"{embeds.num_dropped_tokens} were dropped"
            )
        if embeds.num_dropped_clip_tokens:
            warnings.append(
                f"{field} is longer than the {self._clip_length} tokens that the CLIP encoder reads for the overall "
                f"style: it did not see the last {embeds.num_dropped_clip_tokens}"
            )
        return warnings

    def _encode(self, prompt: str) -> PromptEmbeds:
        parts = self._components
        clip_ids, num_clip_tokens = _tokenize(parts.tokenizer, prompt, self._clip_length)
        t5_ids, num_tokens = _tokenize(parts.tokenizer_2, prompt, self._max_sequence_length)
        # T5 gets no attention mask: FLUX was trained to see the padding.
        prompt_embeds: Tensor = parts.text_encoder_2(t5_ids.to(parts.device))[0]
        pooled: Tensor = parts.text_encoder(clip_ids.to(parts.device)).pooler_output
        return PromptEmbeds(
            prompt_embeds=prompt_embeds.to(parts.dtype),
            pooled_prompt_embeds=pooled.to(parts.dtype),
            num_tokens=min(num_tokens, self._max_sequence_length),
            num_dropped_tokens=max(num_tokens - self._max_sequence_length, 0),
            num_dropped_clip_tokens=max(num_clip_tokens - self._clip_length, 0),
        )


def _tokenize(tokenizer: Any, prompt: str, max_length: int) -> tuple[Tensor, int]:
    """Token ids padded or truncated to `max_length`, and how many tokens the whole prompt has."""
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # the tokenizers refuse lone surrogates
    whole = tokenizer(prompt, verbose=False).input_ids
    padded = tokenizer(
        prompt, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return torch.as_tensor(padded), len(whole)
