"""A prompt becomes embeddings: T5 for its words, CLIP (pooled) for its gist; both padded as FluxPipeline pads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safelight.engine.families.flux1.components import Components
from safelight.engine.prompts import PromptEmbeds


def encode_prompt(parts: Components, prompt: str, *, max_sequence_length: int) -> PromptEmbeds:
    """The prompt by itself; T5 is padded to `max_sequence_length` without a mask, so the length changes the picture."""
    clip_length = min(int(parts.tokenizer.model_max_length), int(parts.text_encoder.config.max_position_embeddings))
    clip_ids, num_clip_tokens = _tokenize(parts.tokenizer, prompt, clip_length)
    t5_ids, num_tokens = _tokenize(parts.tokenizer_2, prompt, max_sequence_length)
    # T5 gets no attention mask: FLUX was trained to see the padding.
    prompt_embeds: Tensor = parts.text_encoder_2(t5_ids.to(parts.device))[0]
    pooled: Tensor = parts.text_encoder(clip_ids.to(parts.device)).pooler_output
    truncations = []
    if num_tokens > max_sequence_length:
        truncations.append(
            f"is too long: the T5 encoder read its first {max_sequence_length} tokens, and the other "
            f"{num_tokens - max_sequence_length} were dropped"
        )
    if num_clip_tokens > clip_length:
        truncations.append(
            f"is longer than the {clip_length} tokens that the CLIP encoder reads for the overall style: it did not "
            f"see the last {num_clip_tokens - clip_length}"
        )
    return PromptEmbeds(
        tensors={
            "prompt_embeds": prompt_embeds.to(parts.precision.computation),
            "pooled_prompt_embeds": pooled.to(parts.precision.computation),
        },
        num_tokens=min(num_tokens, max_sequence_length),
        truncations=tuple(truncations),
    )


def _tokenize(tokenizer: Any, prompt: str, max_length: int) -> tuple[Tensor, int]:
    """Token ids padded or truncated to `max_length`, and how many tokens the whole prompt has."""
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # the tokenizers refuse lone surrogates
    whole = tokenizer(prompt, verbose=False).input_ids
    padded = tokenizer(
        prompt, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return torch.as_tensor(padded), len(whole)
