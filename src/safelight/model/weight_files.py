"""Which files hold a component's weights: one set of those there are, chosen alike before a download and after it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.configs import list_names, read_json
from safelight.model.other_formats import OTHER_WEIGHTS, PICKLES, SINGLE_FILES

PLAIN_WEIGHTS = "use the weights that it was made from, in bfloat16, float16 or float32 and the diffusers layout"
VARIANTS = (None, "bf16", "fp16", "fp32")
"""What may stand in the names of weights, the preferred first: as the checkpoint was saved, else the smallest."""


@dataclass(frozen=True, slots=True)
class Network:
    """A component with weights: the classes that may fill it, and what its library calls the file."""

    name: str
    classes: tuple[str, ...]
    stem: str
    """Of the weights' file: `diffusion_pytorch_model` if diffusers wrote it, `model` if transformers did."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The set of a component that is read."""

    variant: str | None
    """As diffusers and transformers take it."""
    name: str
    """Of the file, or of the index that lists several."""
    is_single: bool = False
    """Whether it is no set as diffusers or transformers saves it, but one file as others do: GGUF, BFL's, ComfyUI's."""

    @property
    def is_index(self) -> bool:
        return self.name.endswith(".json")


def choose_weights(place: Path | str, network: Network, names: Collection[str]) -> WeightFiles:
    """The set to read of the files that a component has, or its only file. `place` is for messages.

    Raises UnsupportedModel if there are weights in other formats only, ModelLoadError if there are none.
    """
    for variant in VARIANTS:
        for name in _names_of(network.stem, variant):
            if name in names:
                return WeightFiles(variant, name)
    singles = sorted(name for name in names if Path(name).suffix.lower() in SINGLE_FILES)
    if len(singles) == 1:
        return WeightFiles(None, singles[0], is_single=True)
    if singles:
        raise UnsupportedModel(
            f"{place} has {len(singles)} files of weights that are no set ({', '.join(singles[:3])} ...), and one is "
            f"read; keep that one, or {network.stem}.safetensors"
        )
    raise _why_none(place, network.stem, names)


def find_weights(folder: Path, network: Network) -> tuple[WeightFiles, list[Path]]:
    """What is read of a local folder, and its files, which are all there.

    Raises UnsupportedModel or ModelLoadError.
    """
    place = folder / network.name
    weights = choose_weights(place, network, list_names(place))
    if not weights.is_index:
        return weights, [place / weights.name]
    shards = [place / shard for shard in list_shards(place / weights.name)]
    for shard in shards:
        if not _is_there(shard):
            raise ModelLoadError(f"{shard} is missing, but {weights.name} lists it; download it again")
    return weights, shards


def _is_there(file: Path) -> bool:
    """Raises ModelLoadError where it may not be seen, as in a cache of another user."""
    try:
        return file.exists()
    except OSError as error:
        raise ModelLoadError(f"{file} cannot be read: {error.strerror}") from None


def list_shards(index: Path) -> list[str]:
    """The names of the files that an index lists. Raises ModelLoadError."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelLoadError(f"{index} has no weight_map; download it again")
    if any(not isinstance(name, str) or Path(name).name != name for name in shards.values()):
        raise ModelLoadError(f"{index} lists what is no file beside it; download it again")
    return sorted(set(shards.values()))


def _names_of(stem: str, variant: str | None) -> tuple[str, str]:
    """In the order in which its library looks for them: diffusers begins with the index."""
    infix = f".{variant}" if variant else ""
    whole, index = f"{stem}{infix}.safetensors", f"{stem}.safetensors.index{infix}.json"
    return (index, whole) if stem.startswith("diffusion") else (whole, index)


def _why_none(place: Path | str, stem: str, names: Collection[str]) -> ModelLoadError:
    whole = f"{stem}.safetensors"
    others = sorted(name for name in names if Path(name).suffix.lower() in OTHER_WEIGHTS)
    if others and Path(others[0]).suffix.lower() in PICKLES:
        return UnsupportedModel(
            f"{place} has weights only as {others[0]}, which can run code when it is read; convert it to {whole}"
        )
    if others:
        return UnsupportedModel(
            f"{place} has weights only as {others[0]}, which is not read; read are {whole}, its shards with their "
            f"index, both with {', '.join(filter(None, VARIANTS))} in their names, and one .gguf or .safetensors"
        )
    return ModelLoadError(f"{place}/{whole} is missing; download the checkpoint again")
