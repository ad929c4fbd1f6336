"""How each component of a checkpoint's folder is stored: told by the heads of its files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import check_checkpoint
from safelight.model.configs import read_json
from safelight.model.families.flux1 import FLUX1
from safelight.model.heads.file_head import read_head
from safelight.model.heads.library_formats import Library, find_packed, library_in_config
from safelight.model.heads.own_format import KINDS, METADATA, NF4, is_own, own_scales
from safelight.model.heads.quantizer_marks import FLOAT8, PLAIN
from safelight.model.heads.tensor_head import FileHead, TensorHead
from safelight.model.single_files.foreign import explain_foreign
from safelight.model.single_files.parts import NAMINGS, TITLES, Part, read_part
from safelight.model.weight_files import Network, find_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """The weights of a component, as its files have them."""

    format: str
    """`safetensors` or `gguf`, and whose names a single file has."""
    dtype: str
    """The most frequent by bytes: `BF16`, `F8_E4M3 with scales`, `Q4_K`; `int8`, if it was quantized here."""
    num_bytes: int
    num_parameters: int
    num_repeated: int
    """Those in the matrices of layers that repeat: what is quantized, if anything is."""
    files: tuple[str, ...]
    """Their paths; of a link, where it leads."""

    @property
    def quantization(self) -> str | None:
        """In a word, such as `q4_k`, `fp8` or `scaled-fp8`; None for plain numbers."""
        kind, _, scales = self.dtype.partition(" ")
        if kind in PLAIN:
            return None
        return ("scaled-fp8" if scales else "fp8") if kind in FLOAT8 else kind.lower()


def describe_parts(folder: Path) -> dict[str, StoredPart]:
    """Component -> how it is stored, in a checkpoint's folder. Raises UnsupportedModel or ModelLoadError."""
    return {network.name: describe_network(folder, network) for network in check_checkpoint(folder).networks}


def describe_network(folder: Path, network: Network) -> StoredPart:
    """The same of one component, whatever else the folder has."""
    weights, paths = find_weights(folder, network)
    if not weights.is_single:
        library = library_in_config(read_json(folder / network.name / "config.json"))
        heads = _read_heads(paths)
        if library is not None:
            return _describe_packed(heads, library)
        tensors = {name: tensor for head in heads.values() for name, tensor in head.tensors.items()}
        _check_part(network, paths[0], tensors)
        return _describe_own(heads) or _summed("safetensors", paths, tensors, "")
    return describe_part(read_part(paths[0], network.name))


def describe_part(part: Part) -> StoredPart:
    """Of a component in a single file."""
    tensors = {name: part.head.tensors[name] for name in part.own if name not in part.scales.names}
    scales = " with scales" if any(name in part.own for name in part.scales.of) else ""
    return _summed(f"{part.head.format} ({part.naming.title})", [part.path], tensors, scales)


def _check_part(network: Network, path: Path, names: Collection[str]) -> None:
    """Raises UnsupportedModel for the files of another part of FLUX.1, or of another model's transformer."""
    held = {naming.component for naming in NAMINGS if naming.mark in names}
    if network not in FLUX1.networks or network.name in held:
        return
    for other in held:
        raise UnsupportedModel(
            f"{path} holds FLUX.1's {TITLES[other]}, not its {TITLES[network.name]}; download the checkpoint again"
        )
    explanation = explain_foreign(path, names) if network.name == "transformer" else None
    if explanation is not None:
        raise UnsupportedModel(f"{path} {explanation}")


def _read_heads(paths: list[Path]) -> dict[Path, FileHead]:
    """Of the files of a set. Raises ModelLoadError if two of them have a tensor of one name."""
    heads, place_of = dict[Path, FileHead](), dict[str, Path]()
    for path in paths:
        heads[path] = read_head(path)
        for name in heads[path].tensors:
            if name in place_of:
                raise ModelLoadError(f"{path} has {name}, and so has {place_of[name]}; download them again")
            place_of[name] = path
    return heads


def _describe_own(heads: Mapping[Path, FileHead]) -> StoredPart | None:
    """Of files that were quantized here, whose dtype is called as the option that made it; None for any other."""
    if not all(is_own(head) for head in heads.values()):
        return None
    tensors, num_bytes = dict[str, TensorHead](), 0
    for path, head in heads.items():
        scales = own_scales(path, head)
        tensors |= {name: head.tensors[name] for name in head.tensors.keys() - scales.values()}
        num_bytes += sum(tensor.num_bytes for tensor in head.tensors.values())
    paths = list(heads)
    kind = str(heads[paths[0]].metadata[METADATA])
    return replace(_summed("safetensors", paths, tensors, ""), dtype=kind, num_bytes=num_bytes)


_KINDS = {dtype: kind for kind, dtype in KINDS.items()} | {NF4: "nf4"}


def _describe_packed(heads: Mapping[Path, FileHead], library: Library) -> StoredPart:
    """The matrices' dtype in the words of our own option, and whose it is; in bytes what they take in memory."""
    packed = find_packed(heads, library)
    kinds = {f"{_KINDS[weight.dtype]} of {library}" for weight in packed.weights.values()}
    matrices = {
        name: TensorHead(weight.dtype, weight.shape, 0, weight.num_bytes) for name, weight in packed.weights.items()
    }
    summed = _summed("safetensors", list(heads), {**packed.plain, **matrices}, "")
    return replace(summed, dtype=min(kinds)) if kinds else summed


_REPEATED = re.compile(r"(blocks?|blk|layers?)\.\d+\..*weight$")


def _summed(format: str, paths: list[Path], tensors: Mapping[str, TensorHead], scales: str) -> StoredPart:
    by_dtype = Counter[str]()
    for tensor in tensors.values():
        by_dtype[tensor.dtype] += tensor.num_bytes
    dtype = by_dtype.most_common(1)[0][0] if by_dtype else "F32"
    return StoredPart(
        format=format,
        dtype=dtype + (scales if dtype in FLOAT8 else ""),
        num_bytes=sum(by_dtype.values()),
        num_parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        num_repeated=sum(
            math.prod(tensor.shape)
            for name, tensor in tensors.items()
            if len(tensor.shape) == 2 and _REPEATED.search(name)
        ),
        files=tuple(_real_paths(paths)),
    )


def _real_paths(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        yield str(path.readlink() if path.is_symlink() and path.readlink().is_absolute() else path)
