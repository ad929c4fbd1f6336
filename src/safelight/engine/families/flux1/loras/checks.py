"""Sorts what a LoRA file holds by the layers that it is for, and refuses a file with anything left over or unfit.

All of it by names and sizes, before a factor is read: only what has no place is looked at, for it may be zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from safelight.engine.families.flux1.loras.names import Linears, Network, Part, Place, Places, find_place, split_key
from safelight.engine.families.flux1.loras.others import Misfit, declared_flux_2, is_added, name_method, name_model
from safelight.engine.families.flux1.loras.tensors import FLOATS, LoraTensors
from safelight.errors import ModelLoadError

MAX_NAMES = 4
"""Of a file with more that do not fit, the first ones are named."""
MAX_SHOWN_CHARACTERS = 300
"""Of what a name, or a library about a file, may say."""


@dataclass(frozen=True, slots=True)
class FileLayer:
    """What a file has for one place in the model."""

    name: str
    """As the file names it."""
    place: Place
    keys: dict[Part, str]
    """The tensors' names."""


@dataclass(frozen=True, slots=True)
class _Sorted:
    layers: dict[Place, FileLayer] = field(default_factory=dict)
    lost: dict[str, list[tuple[Part | None, str]]] = field(default_factory=dict)
    """Layer -> its tensors, where the model has no such layer; or the tensor's name, where it is no part of a LoRA."""
    doubled: list[str] = field(default_factory=list)
    """What is wrong with tensors that stand for one and the same."""


def sort_layers(tensors: LoraTensors, places: Places, linears: Linears) -> list[FileLayer]:
    """The layers that a file adds to. Raises ModelLoadError, without the file's name, unless all of it is for them."""
    found = _sort(tensors.shapes, places)
    unfit = {layer.name: list(_misfits(layer, tensors, linears)) for layer in found.layers.values()}
    sizes = [size for layer in found.layers.values() if unfit[layer.name] for size in _sizes(layer, tensors, linears)]
    _refuse_others(tensors, found, sizes)
    refuse(
        [*found.doubled, *_claimed_twice(found.layers.values()), *(told for each in unfit.values() for told in each)]
    )
    return list(found.layers.values())


def refuse(problems: Sequence[str]) -> None:
    """Raises ModelLoadError, without the file's name, if there are any."""
    if problems:
        more = "; and more" if len(problems) > MAX_NAMES else ""
        raise ModelLoadError(f"does not fit the model: {'; '.join(map(shown, problems[:MAX_NAMES]))}{more}")


def shown(told: BaseException | str) -> str:
    """On one line of bounded length, and without what moves the cursor of a terminal: the file chose the words."""
    text = " ".join(str(told).split()) or type(told).__name__
    text = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _sort(keys: Iterable[str], places: Places) -> _Sorted:
    found = _Sorted()
    for key in keys:
        name, part = split_key(key) or (key, None)
        place = None if part is None else find_place(name, places)
        if part is None or place is None:
            found.lost.setdefault(name, []).append((part, key))
            continue
        layer = found.layers.setdefault(place, FileLayer(name, place, {}))
        if part in layer.keys:
            found.doubled.append(f"{layer.keys[part]} and {key} are for the same layer")
        layer.keys[part] = key
    return found


def _refuse_others(tensors: LoraTensors, found: _Sorted, sizes: Sequence[Misfit]) -> None:
    """Refuses what is for another model, or made by another method, or reaches no layer."""
    lost = list(islice(_left_out(tensors, found), MAX_NAMES + 1))
    names = [key for each in found.lost.values() for _, key in each] if lost else []
    is_lora = bool(found.layers) or any(part is not None for each in found.lost.values() for part, _ in each)
    other = declared_flux_2(tensors.metadata)
    if is_lora and (names or sizes):
        other = name_model(names, sizes, tensors.metadata) or other
    if other is not None:
        raise ModelLoadError(f"is a LoRA for {other[0]}, not for this model: {shown(other[1])}")
    for key in lost:
        if method := name_method(key):
            raise ModelLoadError(
                f"holds {method} ({shown(key)}): only LoRAs of the transformer's and CLIP's linear layers are read"
            )
    if lost and not is_lora:
        raise ModelLoadError(f"holds no LoRA, but whole weights or something else ({shown(lost[0])})")
    refuse([f"{key} {'reaches no layer of it' if split_key(key) else 'is no part of a LoRA'}" for key in lost])


def _left_out(tensors: LoraTensors, found: _Sorted) -> Iterator[str]:
    """The tensors that would be missed. All zeros would not, nor one factor of two whose other is all zeros."""
    for parts in found.lost.values():
        weights = [key for part, key in parts if part != "alpha"]
        missed = [key for key in weights if not (is_added(key) and tensors.is_zero(key))]
        if len(weights) == 2 and {part for part, _ in parts} >= {"down", "up"} and len(missed) == 1:
            continue
        yield from missed if weights else (key for _, key in parts)


def _claimed_twice(layers: Iterable[FileLayer]) -> Iterator[str]:
    owners: dict[tuple[Network, str], FileLayer] = {}
    for layer in layers:
        for each in layer.place.layers:
            owner = owners.setdefault((layer.place.network, each), layer)
            if owner is not layer:
                yield f"{owner.name} and {layer.name} are both for {each}"


def _misfits(layer: FileLayer, tensors: LoraTensors, linears: Linears) -> Iterator[str]:
    lacking = [name for part, name in (("down", "lora_A"), ("up", "lora_B")) if part not in layer.keys]
    if lacking:
        yield f"{layer.name} lacks {' and '.join(lacking)} ({', '.join(layer.keys.values())} is there)"
        return
    shape = tensors.shapes[layer.keys["down"]]
    rank = shape[0] if shape else 0
    if rank == 0:
        yield f"{layer.keys['down']} is {_words(shape)}, of rank 0"
        return
    rows, columns = _outputs(layer, linears), _inputs(layer, linears)
    right: Mapping[Part, tuple[int, ...]] = {"down": (rank, columns), "up": (rows, rank), "bias": (rows,)}
    for part, key in layer.keys.items():
        if part == "alpha":
            if tensors.number(key) is None:
                yield f"{key} is {_words(tensors.shapes[key])} of {tensors.kinds[key]}, not one number"
            continue
        if tensors.shapes[key] != right[part]:
            yield f"{key} is {_words(tensors.shapes[key])}, not {_words(right[part])}"
        if tensors.kinds[key] not in FLOATS:
            yield f"{key} is made of {tensors.kinds[key]}, not of floating-point numbers"


def _sizes(layer: FileLayer, tensors: LoraTensors, linears: Linears) -> Iterator[Misfit]:
    down, up = (tensors.shapes.get(layer.keys.get(part, ""), ()) for part in ("down", "up"))
    if len(down) == len(up) == 2:
        yield Misfit(layer.name, layer.place, columns=down[1], rows=up[0], width=_inputs(layer, linears))


def _inputs(layer: FileLayer, linears: Linears) -> int:
    return linears[layer.place.network][layer.place.layers[0]].in_features


def _outputs(layer: FileLayer, linears: Linears) -> int:
    return sum(linears[layer.place.network][each].out_features for each in layer.place.layers)


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"
