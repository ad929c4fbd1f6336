"""A prompt becomes embeddings: T5 for its words, CLIP (pooled) for its gist; both padded as FluxPipeline pads them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import regex
import torch
from torch import Tensor

from safelight.engine.families.flux1.components import Components
from safelight.engine.prompts import PromptEmbeds

MAX_NAMED = 10
"""Of the characters that an encoder cannot read, so many are named."""
MAX_CODE_POINTS = 8
"""Of one of them: an emoji is made of several, and a joke of thousands."""


def encode_prompt(parts: Components, prompt: str, *, max_sequence_length: int) -> PromptEmbeds:
    """The prompt by itself; T5 is padded to `max_sequence_length` without a mask, so the length changes the picture."""
    clip_length = min(int(parts.tokenizer.model_max_length), int(parts.text_encoder.config.max_position_embeddings))
    clip = _tokenize(parts.tokenizer, prompt, clip_length)
    t5 = _tokenize(parts.tokenizer_2, prompt, max_sequence_length)
    # T5 gets no attention mask: FLUX was trained to see the padding.
    prompt_embeds: Tensor = parts.text_encoder_2(t5.ids.to(parts.device))[0]
    pooled: Tensor = parts.text_encoder(clip.ids.to(parts.device)).pooler_output
    return PromptEmbeds(
        tensors={
            "prompt_embeds": prompt_embeds.to(parts.precision.computation),
            "pooled_prompt_embeds": pooled.to(parts.precision.computation),
        },
        num_tokens=min(t5.num_tokens, max_sequence_length),
        not_read=tuple(_not_read(t5, clip, max_sequence_length, clip_length)),
    )


def _not_read(t5: _Tokens, clip: _Tokens, max_sequence_length: int, clip_length: int) -> Iterator[str]:
    if t5.num_tokens > max_sequence_length:
        yield (
            f"is too long: the T5 encoder read its first {max_sequence_length} tokens, and the other "
            f"{t5.num_tokens - max_sequence_length} were dropped"
        )
    if clip.num_tokens > clip_length:
        yield (
            f"is longer than the {clip_length} tokens that the CLIP encoder reads for the overall style: it did not "
            f"see the last {clip.num_tokens - clip_length}"
        )
    for encoder, tokens in (("T5", t5), ("CLIP", clip)):
        if tokens.unread:
            yield f"has characters that the {encoder} encoder cannot read: {tokens.unread}"


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: Tensor
    """Padded or truncated to what the encoder reads."""
    num_tokens: int
    """Of the whole prompt."""
    unread: str
    """Characters that the encoder cannot read, in the words of a warning; of many, the first ones and how many more."""


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
