"""Writes a network's weights as `lean_loading` would quantize them, in files that it maps later: own_format has how.

Tensor by tensor, each to its place in its shard, so that never more than one of them is in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from safelight.engine.weights.files import FileTensor
from safelight.engine.weights.lean_loading import MakeNetwork, quantize_weight, repeated_linears
from safelight.engine.weights.stored_weights import Nf4Weight
from safelight.model.heads.own_format import KINDS, METADATA, NF4, SCALE, scale_head
from safelight.model.heads.quantizer_marks import PLAIN
from safelight.settings import Quantization

SHARD_BYTES = 4_000_000_000
_ITEM_BYTES = {"I8": 1, "U8": 1, "F8_E4M3": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the files to be."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class QuantizedFiles:
    """What will be written for a component: each group of entries comes of one weight, and stays in one shard."""

    groups: Mapping[str, Sequence[Entry]]
    """Name of a weight -> its numbers, and its scales if it is quantized."""
    numbers: Callable[[str], Sequence[Tensor]]
    """What its entries hold; called once for each weight, when it is written."""
    quantization: Quantization

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for group in self.groups.values() for entry in group)

    def write(self, place: Path, stem: str, *, shard_bytes: int = SHARD_BYTES) -> Iterator[int]:
        """Into a folder, under the names that diffusers and transformers give to shards.

        Yields the bytes of each weight when it is written. Raises OSError.
        """
        shards = list(self._shards(shard_bytes))
        names = [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
        if len(shards) == 1:
            names = [f"{stem}.safetensors"]
        for name, shard in zip(names, shards, strict=True):
            yield from self._write_shard(place / name, shard)
        if len(shards) > 1:
            weight_map = {
                entry.name: name
                for name, shard in zip(names, shards, strict=True)
                for weight in shard
                for entry in self.groups[weight]
            }
            index = {"metadata": {"total_size": self.num_bytes}, "weight_map": weight_map}
            (place / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))

    def _shards(self, shard_bytes: int) -> Iterator[list[str]]:
        shard, filled = list[str](), 0
        for weight, group in self.groups.items():
            size = sum(entry.num_bytes for entry in group)
            if shard and filled + size > shard_bytes:
                yield shard
                shard, filled = [], 0
            shard.append(weight)
            filled += size
        yield shard

    def _write_shard(self, path: Path, weights: Sequence[str]) -> Iterator[int]:
        entries = [entry for weight in weights for entry in self.groups[weight]]
        entries.sort(key=lambda entry: -_ITEM_BYTES[entry.dtype])  # so that each begins where its dtype may begin
        mark = {} if self.quantization == "none" else {METADATA: self.quantization}
        head: dict[str, Any] = {"__metadata__": {"format": "pt", **mark}}
        end = 0
        for entry in entries:
            head[entry.name] = {
                "dtype": entry.dtype,
                "shape": entry.shape,
                "data_offsets": (end, end + entry.num_bytes),
            }
            end += entry.num_bytes
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for weight in weights:
                for entry, numbers in zip(self.groups[weight], self.numbers(weight), strict=True):
                    file.seek(8 + len(text) + head[entry.name]["data_offsets"][0])
                    file.write(_bytes_of(numbers))
                yield sum(entry.num_bytes for entry in self.groups[weight])
            file.flush()
            os.fsync(file.fileno())


def plan_files(
    make: MakeNetwork, tensors: Mapping[str, FileTensor], quantization: Quantization
) -> QuantizedFiles | None:
    """What a component's weights become; None if they are quantized already, and so stay as they are."""
    if any(tensor.dtype not in (*PLAIN, "I64") for tensor in tensors.values()):
        return None
    with init_empty_weights(include_buffers=False):
        network = make()
    repeated = {f"{name}.weight" for name in repeated_linears(network)}
    heads = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}

    def numbers(name: str) -> Sequence[Tensor]:
        if name not in repeated:
            return (tensors[name].values,)
        stored = quantize_weight(tensors[name], quantization, torch.device("cpu"))
        return (stored.pairs if isinstance(stored, Nf4Weight) else stored.values, stored.scales)

    return QuantizedFiles(group_entries(heads, repeated, quantization), numbers, quantization)


def group_entries(
    heads: Mapping[str, tuple[str, tuple[int, ...]]], repeated: Collection[str], quantization: Quantization
) -> dict[str, list[Entry]]:
    """`heads`: name -> dtype and shape of each weight, of which `repeated` are to be quantized."""
    return {
        name: _quantized(name, shape, quantization) if name in repeated else [Entry(name, dtype, shape)]
        for name, (dtype, shape) in heads.items()
    }


def _quantized(name: str, shape: tuple[int, ...], quantization: Quantization) -> list[Entry]:
    is_nf4 = quantization == "nf4" and shape[1] % 2 == 0
    kind = "int8" if quantization == "nf4" and not is_nf4 else quantization
    numbers = Entry(name, KINDS[kind], (shape[0], shape[1] // 2) if is_nf4 else shape)
    dtype, of_scales = scale_head(NF4 if is_nf4 else numbers.dtype, shape)
    return [numbers, Entry(name + SCALE, dtype, of_scales)]


def _bytes_of(numbers: Tensor) -> Any:
    return numbers.contiguous().reshape(-1).view(torch.uint8).numpy()
