"""The LoRAs of a model that are in memory: those used last, and those that pictures in progress still use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from safelight.engine.low_rank import Lora
from safelight.engine.lru_cache import LruCache
from safelight.errors import ModelLoadError
from safelight.model.spec import LoraFile

logger = logging.getLogger(__name__)


class KeptLoras:
    """Reads every one of `sources` once, so that one that does not fit is found out now. Raises ModelLoadError."""

    def __init__(self, sources: Sequence[LoraFile], read: Callable[[LoraFile], Lora], *, max_bytes: int) -> None:
        self._sources = {source.name: source for source in sources}
        self._read = read
        self._kept: LruCache[str, Lora] = LruCache(max_bytes)
        self._in_use: WeakValueDictionary[str, Lora] = WeakValueDictionary()
        for name, source in self._sources.items():
            self._keep(name, read(source))

    def find(self, name: str) -> Lora:
        """From the cache or a picture in progress if it is there, else from its file.

        Raises ModelLoadError, which a client reads: where the file lies is in the log only.
        """
        lora = self._kept.get(name)
        if lora is None:
            try:
                lora = self._in_use.get(name) or self._read(self._sources[name])
            except ModelLoadError as error:
                logger.error("LoRA '%s' cannot be read again: %s", name, error.message)
                raise ModelLoadError(
                    f"LoRA '{name}' cannot be used: its file was changed or removed after the server had started; the "
                    "server's log says more"
                ) from None
            self._keep(name, lora)
        return lora

    def _keep(self, name: str, lora: Lora) -> None:
        self._in_use[name] = lora
        self._kept.put(name, lora)
