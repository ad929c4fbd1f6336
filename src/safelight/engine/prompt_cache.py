"""Text embeddings of recent prompts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from safelight.engine.lru_cache import LruCache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptEmbeds:
    """What the text encoders made of one prompt, and what they could not read of it."""

    prompt_embeds: Tensor
    """T5: (1, max_sequence_length, channels)."""
    pooled_prompt_embeds: Tensor
    """CLIP: (1, channels)."""
    num_tokens: int
    """T5 tokens read, padding not counted."""
    num_dropped_tokens: int
    """T5 tokens beyond max_sequence_length."""
    num_dropped_clip_tokens: int
    unread: str = ""
    """Characters that T5 cannot read, in the words of a warning; of many, the first ones and how many more."""
    unread_by_clip: str = ""

    @property
    def nbytes(self) -> int:
        return self.prompt_embeds.nbytes + self.pooled_prompt_embeds.nbytes


PromptKey = tuple[str, int, tuple[tuple[str, float], ...]]
"""The prompt, its max_sequence_length (T5 is padded without a mask, so the length changes the embeddings), and name and
scale of the LoRAs that change the text encoder."""
PromptCache = LruCache[PromptKey, PromptEmbeds]
