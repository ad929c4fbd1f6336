"""How large the components of a checkpoint's folder are, and how they are stored: by the heads of their files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safelight.model.checkpoint import check_checkpoint
from safelight.model.file_head import read_head
from safelight.model.single_files.parts import read_part
from safelight.model.tensor_head import TensorHead
from safelight.model.weight_files import Network, find_weights

LARGE_BYTES = 1024**3
"""Of a component's files: from here on its weights stay mapped, in the dtype of the file."""
_REPEATED = re.compile(r"(blocks?|blk|layers?)\.\d+\..*weight$")
_PLAIN = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSize:
    """One component of a checkpoint."""

    name: str
    stored: str
    """The dtype of most of its numbers, as its files call it: `BF16`, `Q4_K`."""
    repeated: int
    """Numbers in the matrices of layers that repeat: what is quantized, if anything is."""
    others: int
    num_bytes: int

    @property
    def num_numbers(self) -> int:
        return self.repeated + self.others

    @property
    def is_quantized(self) -> bool:
        """By its file."""
        return self.stored not in _PLAIN

    @property
    def is_mapped(self) -> bool:
        """Whether it is so large that it stays in its file unless it is quantized."""
        return self.num_bytes >= LARGE_BYTES


def read_component_sizes(folder: Path) -> list[ComponentSize]:
    """Of all components with weights. Raises UnsupportedModel or ModelLoadError."""
    return [_size(network.name, _heads(folder, network)) for network in check_checkpoint(folder).networks]


def _heads(folder: Path, network: Network) -> Mapping[str, TensorHead]:
    weights, paths = find_weights(folder, network)
    if weights.is_single:
        part = read_part(paths[0], network.name)
        return {name: part.head.tensors[name] for name in part.own}
    return {name: head for path in paths for name, head in read_head(path).tensors.items()}


def _size(name: str, heads: Mapping[str, TensorHead]) -> ComponentSize:
    repeated = [head for key, head in heads.items() if len(head.shape) == 2 and _REPEATED.search(key)]
    return ComponentSize(
        name=name,
        stored=_most_common_dtype(heads.values()),
        repeated=sum(math.prod(head.shape) for head in repeated),
        others=sum(math.prod(head.shape) for head in heads.values()) - sum(math.prod(head.shape) for head in repeated),
        num_bytes=sum(head.num_bytes for head in heads.values()),
    )


def _most_common_dtype(heads: Iterable[TensorHead]) -> str:
    numbers = Counter[str]()
    for head in heads:
        numbers[head.dtype] += math.prod(head.shape)
    return numbers.most_common(1)[0][0] if numbers else "F32"
