"""A prompt becomes embeddings: T5 for its words, CLIP (pooled) for its gist; both padded as FluxPipeline pads them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import regex
import torch
from torch import Tensor

from safelight.engine.families.flux1.components import Components
from safelight.engine.low_rank import Addition, adapted
from safelight.engine.prompt_cache import PromptCache, PromptEmbeds
from safelight.picture.generation import GenerationRequest

MAX_NAMED = 10
"""Of the characters that an encoder cannot read, so many are named."""
MAX_CODE_POINTS = 8
"""Of one of them: an emoji is made of several, and a joke of thousands."""


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
        warnings = [warning for field, embeds in prompts.items() for warning in self._not_read(field, embeds)]
        return tuple(prompts.values()), warnings

    def _encode_once(self, prompt: str, adapters: tuple[tuple[str, float], ...]) -> PromptEmbeds:
        """From the cache if it is there."""
        key = (prompt, self._max_sequence_length, adapters)
        embeds = self.cache.get(key)
        if embeds is None:
            embeds = self._encode(prompt)
            self.cache.put(key, embeds)
        return embeds

    def _not_read(self, field: str, embeds: PromptEmbeds) -> list[str]:
        """One sentence for each thing that an encoder did not read; `field` is prompt or negative_prompt."""
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
        for encoder, unread in (("T5", embeds.unread), ("CLIP", embeds.unread_by_clip)):
            if unread:
                warnings.append(f"{field} has characters that the {encoder} encoder cannot read: {unread}")
        return warnings

    def _encode(self, prompt: str) -> PromptEmbeds:
        parts = self._components
        clip = _tokenize(parts.tokenizer, prompt, self._clip_length)
        t5 = _tokenize(parts.tokenizer_2, prompt, self._max_sequence_length)
        # T5 gets no attention mask: FLUX was trained to see the padding.
        prompt_embeds: Tensor = parts.text_encoder_2(t5.ids.to(parts.device))[0]
        pooled: Tensor = parts.text_encoder(clip.ids.to(parts.device)).pooler_output
        return PromptEmbeds(
            prompt_embeds=prompt_embeds.to(parts.dtype),
            pooled_prompt_embeds=pooled.to(parts.dtype),
            num_tokens=min(t5.num_tokens, self._max_sequence_length),
            num_dropped_tokens=max(t5.num_tokens - self._max_sequence_length, 0),
            num_dropped_clip_tokens=max(clip.num_tokens - self._clip_length, 0),
            unread=t5.unread,
            unread_by_clip=clip.unread,
        )


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: Tensor
    """Padded or truncated to what the encoder reads."""
    num_tokens: int
    """Of the whole prompt."""
    unread: str
    """See `PromptEmbeds`."""


def _tokenize(tokenizer: Any, prompt: str, max_length: int) -> _Tokens:
    prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # the tokenizers refuse lone surrogates
    whole = tokenizer(prompt, verbose=False).input_ids
    padded = tokenizer(
        prompt,
        padding="max_length",
        max_length=max_length,
        truncation=True,
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    ids = torch.as_tensor(padded.input_ids)
    special = set(tokenizer.all_special_ids)
    # A special token that stands somewhere in the prompt was not put there by the tokenizer: it is what the tokenizer
    # made of characters that it does not know, or of its own name.
    unread = [
        prompt[start:end]
        for token, (start, end) in zip(ids[0].tolist(), padded.offset_mapping[0].tolist(), strict=True)
        if token in special and start < end
    ]
    return _Tokens(ids, len(whole), _named(unread, set(tokenizer.all_special_tokens)))


def _named(pieces: Iterable[str], special_tokens: set[str]) -> str:
    """The different characters of the pieces, as a reader counts them, the first ones by name."""
    found: dict[str, None] = {}
    for piece in dict.fromkeys(pieces):
        found |= dict.fromkeys([piece] if piece in special_tokens else regex.findall(r"\X", piece))
    named = ", ".join(_shown(each[:MAX_CODE_POINTS]) for each in list(found)[:MAX_NAMED])
    return named if len(found) <= MAX_NAMED else f"{named} and {len(found) - MAX_NAMED} more"


def _shown(character: str) -> str:
    """In quotes; a mark without the letter that it belongs to cannot be seen, and is shown by its number."""
    return ascii(character) if unicodedata.category(character[0]).startswith("M") else repr(character)
