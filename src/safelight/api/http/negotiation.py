"""HTTP content negotiation (RFC 9110, section 12.5.1): which of the media types on offer the client likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from safelight.errors import NotAcceptable

MAX_RANGES = 100
_ALIASES = {"image/jpg": "image/jpeg", "*": "*/*"}


@dataclass(frozen=True, slots=True)
class _Range:
    media_type: str
    quality: float
    position: int

    @property
    def specificity(self) -> int:
        if self.media_type == "*/*":
            return 0
        return 1 if self.media_type.endswith("/*") else 2

    def matches(self, media_type: str) -> bool:
        return self.media_type in ("*/*", media_type, media_type.split("/", maxsplit=1)[0] + "/*")


def negotiate(fields: Sequence[str], offers: Sequence[str]) -> str:
    """The best of `offers` (the server's favourite first). Raises NotAcceptable listing them.

    `fields` are all the Accept fields of a request; they count as one list. Among equals an exact name wins over a
    wildcard, then what the client named first, then the server's favourite.
    """
    accept = ", ".join(fields)
    if accept.count(",") >= MAX_RANGES:
        raise NotAcceptable(
            f"Accept names more than {MAX_RANGES} media types; name those that are wanted", field="Accept"
        )
    ranges = _parse(accept)
    if not ranges:
        return offers[0]
    ranked = [
        (-found.quality, -found.specificity, found.position, index)
        for index, offer in enumerate(offers)
        if (found := _most_specific(ranges, offer)) and found.quality > 0
    ]
    if not ranked:
        raise NotAcceptable(
            f"nothing that Accept {accept[:100]!r} names can be made; accepted are: {', '.join(offers)}", field="Accept"
        )
    return offers[min(ranked)[-1]]


def _most_specific(ranges: Sequence[_Range], offer: str) -> _Range | None:
    matching = [each for each in ranges if each.matches(offer)]
    return max(matching, key=lambda each: (each.specificity, each.quality), default=None)


def _parse(accept: str) -> list[_Range]:
    ranges = []
    for position, element in enumerate(accept.split(",")):
        media_type, *parameters = (part.strip().lower() for part in element.split(";"))
        if media_type:
            ranges.append(_Range(_ALIASES.get(media_type, media_type), _quality(parameters), position))
    return ranges


def _quality(parameters: Sequence[str]) -> float:
    """The q of a media range; 1 if it has none, or one that is no number."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 1.0
            return min(max(quality, 0.0), 1.0) if math.isfinite(quality) else 1.0
    return 1.0
