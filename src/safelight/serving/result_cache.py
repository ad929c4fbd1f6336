"""Results that answer a request like the one that made them: the same seed is the same picture (decision 0002).

Off unless it is given room. A request without a seed draws one, so that only who names a seed gets a result again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec

from safelight.engine.lru_cache import LruCache
from safelight.picture.generation import GenerationRequest, GenerationResult, Timings
from safelight.telemetry.names import NO_NAMES

_encoder = msgspec.msgpack.Encoder()
_OF_EACH = {
    "id": "",
    "timeout_s": 1.0,
    "num_previews": 0,
    "tells_steps": True,
    "is_streamed": False,
    "preview_decoder": "projection",
    "names": NO_NAMES,
}
"""What two requests for the same pictures may differ in."""
HELD_BYTES = 1024
"""About what Python needs for a result or an image beside its bytes, and for the key."""


@dataclass(frozen=True, slots=True)
class _Kept:
    result: GenerationResult

    @property
    def nbytes(self) -> int:
        """With what holds them: of tiny pictures that is most."""
        said = sum(len(warning) for warning in self.result.warnings)
        return HELD_BYTES + said + sum(HELD_BYTES + len(image.content) for image in self.result.images)


class ResultCache:
    """Up to `max_bytes` of results, least recently used out first; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._kept: LruCache[bytes, _Kept] = LruCache(max_bytes)
        self._is_on = max_bytes > 0

    def find(self, request: GenerationRequest) -> GenerationResult | None:
        """The result of a request that was identical in every parameter and seed, marked as such."""
        kept = self._kept.get(_key(request)) if self._is_on else None
        return None if kept is None else kept.result

    def keep(self, request: GenerationRequest, result: GenerationResult) -> None:
        if self._is_on:
            self._kept.put(_key(request), _Kept(replace(result, is_repeated=True, timings=Timings())))


def _key(request: GenerationRequest) -> bytes:
    """Warnings are a part of it: who asked for a size that had to be fitted is told so again."""
    return hashlib.sha256(_encoder.encode(replace(request, **_OF_EACH))).digest()  # type: ignore[arg-type]
