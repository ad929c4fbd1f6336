"""Keeps what took time to make, least recently used out first, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Whatever knows the bytes of its tensors."""

    @property
    def nbytes(self) -> int: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class LruCache(Generic[K, V]):
    """Keeps values up to `max_bytes` in all; 0 keeps none. What is larger than that is not kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[K, V] = OrderedDict()
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        if value.nbytes > self._max_bytes:
            return
        self._forget(key)
        self._values[key] = value
        self.nbytes += value.nbytes
        while self.nbytes > self._max_bytes:
            self._forget(next(iter(self._values)))

    def _forget(self, key: K) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self.nbytes -= value.nbytes
