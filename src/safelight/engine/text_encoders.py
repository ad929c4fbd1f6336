"""A prompt becomes embeddings: T5 for its words, CLIP (pooled) for its gist; both padded as FluxPipeline pads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safelight.engine.components import Components
from safelight.engine.prompt_cache import PromptEmbeds


def encode_prompt(components: Components, prompt: str, *, max_sequence_length: int) -> PromptEmbeds:
    """The embeddings of one prompt, on the components' device."""
    device = components.device
    clip_length = clip_max_length(components)
    clip_ids, num_clip_tokens = _tokenize(components.tokenizer, prompt, clip_length)
    t5_ids, num_tokens = _tokenize(components.tokenizer_2, prompt, max_sequence_length)
    # T5 gets no attention mask: FLUX was trained to see the padding.
    prompt_embeds: Tensor = components.text_encoder_2(t5_ids.to(device))[0]
    pooled: Tensor = components.text_encoder(clip_ids.to(device)).pooler_output
    return PromptEmbeds(
        prompt_embeds=prompt_embeds.to(components.dtype),
        pooled_prompt_embeds=pooled.to(components.dtype),
        num_tokens=min(num_tokens, max_sequence_length),
        num_dropped_tokens=max(num_tokens - max_sequence_length, 0),
        num_dropped_clip_tokens=max(num_clip_tokens - clip_length, 0),
    )


def clip_max_length(components: Components) -> int:
    """How many tokens CLIP reads: 77 in every FLUX.1 checkpoint."""
    positions = int(components.text_encoder.config.max_position_embeddings)
    return min(int(components.tokenizer.model_max_length), positions)


def truncation_warnings(field: str, embeds: PromptEmbeds, *, clip_length: int) -> list[str]:
    """One sentence for each encoder that could not read the whole prompt; `field` is prompt or negative_prompt."""
    warnings = []
    if embeds.num_dropped_tokens:
        warnings.append(
            f"{field} is too long: the T5 encoder reads its first {embeds.num_tokens} tokens, and the last "
            f"{embeds.num_dropped_tokens} were dropped"
        )
    if embeds.num_dropped_clip_tokens:
        warnings.append(
            f"{field} is longer than the CLIP encoder's {clip_length} tokens, which set the overall style: it did not "
            f"see the last {embeds.num_dropped_clip_tokens}"
        )
    return warnings


def _tokenize(tokenizer: Any, prompt: str, max_length: int) -> tuple[Tensor, int]:
    """Token ids padded or truncated to `max_length`, and how many tokens the whole prompt has."""
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # the tokenizers refuse lone surrogates
    whole = tokenizer(prompt, verbose=False).input_ids
    padded = tokenizer(
        prompt, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return torch.as_tensor(padded), len(whole)
