"""Text embeddings of recent prompts, least recently used out first, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor


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

    @property
    def nbytes(self) -> int:
        return self.prompt_embeds.nbytes + self.pooled_prompt_embeds.nbytes


PromptKey = tuple[str, int]
"""The prompt and its max_sequence_length: T5 is padded without a mask, so the length changes the embeddings."""


class PromptCache:
    """Keeps embeddings up to `max_bytes`; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._embeds: OrderedDict[PromptKey, PromptEmbeds] = OrderedDict()
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: PromptKey) -> PromptEmbeds | None:
        embeds = self._embeds.get(key)
        if embeds is None:
            self.misses += 1
            return None
        self.hits += 1
        self._embeds.move_to_end(key)
        return embeds

    def put(self, key: PromptKey, embeds: PromptEmbeds) -> None:
        if embeds.nbytes > self._max_bytes:
            return
        self._forget(key)
        self._embeds[key] = embeds
        self.nbytes += embeds.nbytes
        while self.nbytes > self._max_bytes:
            self._forget(next(iter(self._embeds)))

    def _forget(self, key: PromptKey) -> None:
        embeds = self._embeds.pop(key, None)
        if embeds is not None:
            self.nbytes -= embeds.nbytes
