"""A request's prompts become embeddings, once: recent ones are remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from safelight.engine.low_rank import Addition, adapted
from safelight.engine.lru_cache import LruCache
from safelight.picture.generation import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptEmbeds:
    """What a family's text encoders made of one prompt, and what they could not read of it."""

    tensors: Mapping[str, Tensor]
    """By the family's own names; (1, ...) each, and of equal shape for every prompt."""
    num_tokens: int
    """Read, padding not counted."""
    not_read: tuple[str, ...] = ()
    """A sentence for each thing that an encoder did not read, without its subject: `is too long: ...`."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


PromptKey = tuple[str, tuple[tuple[str, float], ...]]
"""The prompt, and name and scale of the LoRAs that change the text encoder."""
PromptCache = LruCache[PromptKey, PromptEmbeds]


class PromptEncoder:
    """Encodes the prompts of requests. `text_encoder` is the one that LoRAs change."""

    def __init__(self, encode: Callable[[str], PromptEmbeds], text_encoder: nn.Module, cache: PromptCache) -> None:
        self._encode = encode
        self._text_encoder = text_encoder
        self.cache = cache

    def encode_request(
        self, request: GenerationRequest, additions: Sequence[Addition] = ()
    ) -> tuple[tuple[PromptEmbeds, ...], list[str]]:
        """The prompt's embeddings, after them the negative prompt's if guidance runs; and what could not be read.

        `additions` are the layers for the text encoder of the request's LoRAs, in their order.
        """
        texts = {"prompt": request.prompt}
        if request.is_guided and request.negative_prompt is not None:
            texts["negative_prompt"] = request.negative_prompt
        adapters = tuple(
            (weight.name, weight.scale) for weight, (layers, _) in zip(request.loras, additions, strict=True) if layers
        )
        with adapted(self._text_encoder, [additions]):
            prompts = {field: self._encode_once(text, adapters) for field, text in texts.items()}
        warnings = [f"{field} {said}" for field, embeds in prompts.items() for said in embeds.not_read]
        return tuple(prompts.values()), warnings

    def _encode_once(self, prompt: str, adapters: tuple[tuple[str, float], ...]) -> PromptEmbeds:
        """From the cache if it is there."""
        key = (prompt, adapters)
        embeds = self.cache.get(key)
        if embeds is None:
            embeds = self._encode(prompt)
            self.cache.put(key, embeds)
        return embeds
