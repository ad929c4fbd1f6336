"""What a model folder is, by its configs alone: a checkpoint of a family in the diffusers layout, or refused by name.

Needs neither weights nor torch: the gateway refuses before a replica starts, and a download before its weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.configs import INDEX, MAX_SIZE, class_in_index, list_names, named, read_json, shortened
from safelight.model.families.layout import Layout
from safelight.model.families.registry import all_networks, all_without_weights, find_layout, list_served
from safelight.model.heads.library_formats import four_bit_type, library_in_config, torchao_type
from safelight.model.heads.own_format import kind_in_config
from safelight.model.other_formats import explain_folder
from safelight.model.revision import hub_id_of, sha256_of
from safelight.model.spec import Guidance, ModelSpec
from safelight.model.weight_files import PLAIN_WEIGHTS, Network

SIDECAR = "safelight.json"
QUANTIZER_FILES = {
    "quanto_qmap.json": "quanto",
    "quantization_config.json": "SDNQ",
    "hf_quant_config.json": "ModelOpt",
}
"""Written beside the weights by libraries that leave config.json as it was."""
_PICTURES_DEPEND_ON = (
    "*/config.json",
    "*/*.safetensors",
    "*/*.gguf",
    "*/*.safetensors.index.json",
    "*/*.safetensors.index.*.json",
)
"""And on all of a component without weights."""


def check_checkpoint(folder: Path) -> Layout:
    """The family that the folder is of.

    Raises UnsupportedModel for what Safelight does not serve, ModelLoadError if a config is missing or broken.
    """
    index = _read_index(folder)
    layout = _check_pipeline(folder, index)
    for network in layout.networks:
        _check_class(folder, layout, network, class_in_index(index, network.name))
    _check_nothing_else(folder, layout, index)
    for network in layout.networks:
        _check_not_quantized(folder, network.name)
    layout.check(folder)
    return layout


def read_model_spec(folder: Path) -> ModelSpec:
    """The spec of a diffusers-layout folder: its sidecar's values over those read off the component configs.

    Raises UnsupportedModel if the folder is no checkpoint of a family that is served, ModelLoadError if it is broken.
    """
    spec = check_checkpoint(folder).describe(folder)
    values = msgspec.to_builtins(spec) | _values_from_sidecar(folder)
    try:
        told = msgspec.convert(values, ModelSpec)
    except msgspec.ValidationError as error:
        hint = f" (one of {', '.join(Guidance)})" if "guidance" in str(error) else ""
        raise ModelLoadError(f"{folder / SIDECAR} makes no sense: {error}{hint}; correct it, or remove it") from None
    for field in fields(told):
        value = getattr(told, field.name)
        if isinstance(value, int) and not 1 <= value <= MAX_SIZE:
            raise ModelLoadError(
                f"{folder / SIDECAR} has {field.name} {shortened(value)}, not a number from 1 to {MAX_SIZE}; correct "
                "it, or remove it"
            )
    return told


def config_files() -> Iterator[str]:
    """Patterns of what tells of a checkpoint of any family whether it is served: small beside its weights."""
    yield from (INDEX, SIDECAR)
    yield from (f"{name}/*" for name in all_without_weights())
    yield from (f"{network.name}/{file}" for network in all_networks() for file in ("config.json", *QUANTIZER_FILES))


def revision_of(folder: Path) -> str:
    """Which files a folder holds, in one line of text: two folders with equal revisions make the same pictures.

    The hub's commit if the folder lies in its cache, else `sha256:` and 16 digits over names and contents. Reads every
    file that has no digest beside it: seconds for a large checkpoint.
    """
    return folder.name if hub_id_of(folder) else _digest(folder)


def _digest(folder: Path) -> str:
    digest, contents = hashlib.sha256(), dict[Path, bytes]()
    patterns = [*_PICTURES_DEPEND_ON, *(f"{name}/*" for name in all_without_weights())]
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(os.fsencode(path.relative_to(folder).as_posix()) + b"\0")
        real = path.resolve()
        if real not in contents:  # a file with several parts is read once
            contents[real] = sha256_of(path)
        digest.update(contents[real])
    return f"sha256:{digest.hexdigest()[:16]}"


def _values_from_sidecar(folder: Path) -> dict[str, Any]:
    path = folder / SIDECAR
    if not path.exists():
        return {}
    values = read_json(path)
    unknown = sorted(values.keys() - ({field.name for field in fields(ModelSpec)} - {"loras"}))
    if unknown:
        raise ModelLoadError(f"{path} has unknown keys {', '.join(unknown)}; remove them")
    if isinstance(values.get("max_size"), int):
        values.setdefault("max_pixels", values["max_size"] ** 2)
    return values


def _read_index(folder: Path) -> dict[str, Any]:
    names = list_names(folder)
    explanation = None if INDEX in names else explain_folder(names)
    if explanation is not None:
        raise UnsupportedModel(f"{named(folder)} {explanation}")
    return read_json(folder / INDEX)


def _check_pipeline(folder: Path, index: Mapping[str, Any]) -> Layout:
    pipeline = index.get("_class_name")
    layout = find_layout(pipeline)
    if layout is None:
        raise UnsupportedModel(
            f"{named(folder)} holds a {str(pipeline or 'pipeline without a name')[:80]}, which Safelight does not "
            f"serve; it serves {list_served()}"
        )
    return layout


def _check_class(folder: Path, layout: Layout, network: Network, class_name: str | None) -> None:
    if class_name not in network.classes:
        raise UnsupportedModel(
            f"{named(folder, INDEX)}: {network.name} is {class_name or 'missing'}; a {layout.title} checkpoint has "
            f"{' or '.join(network.classes)} there"
        )
    own_name = read_json(folder / network.name / "config.json").get("_class_name", class_name)
    if own_name != class_name:
        raise UnsupportedModel(
            f"{named(folder, network.name)}/config.json is of a {str(own_name)[:80]}, but {INDEX} says {class_name}; "
            "download the checkpoint again"
        )


def _check_nothing_else(folder: Path, layout: Layout, index: Mapping[str, Any]) -> None:
    """A ControlNet or an image encoder is part of what the checkpoint does, and would be left out."""
    known = {*layout.without_weights, *(network.name for network in layout.networks)}
    others = {name: class_name for name in index.keys() - known if (class_name := class_in_index(index, name))}
    if others:
        listed = ", ".join(f"{name} ({class_name})" for name, class_name in sorted(others.items()))
        raise UnsupportedModel(
            f"{named(folder)} has more than a {layout.title} checkpoint, and Safelight would leave it out: {listed}; "
            f"serve the checkpoint without it (its {INDEX} then has [null, null] there)"
        )


def _check_not_quantized(folder: Path, component: str) -> None:
    place = folder / component
    config = read_json(place / "config.json")
    method = next((name for file, name in QUANTIZER_FILES.items() if (place / file).exists()), None)
    settings = config.get("quantization_config") or config.get("compression_config")
    try:
        is_read = kind_in_config(config) is not None or library_in_config(config) is not None
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{named(folder, component)} cannot be read: {error.message}") from None
    if settings and not is_read:
        method = _method_in(settings) or method or "a method that its config.json does not name"
    if method is not None:
        raise UnsupportedModel(
            f"{named(folder, component)} is quantized with {method}, which is not read; {PLAIN_WEIGHTS}"
        )


def _method_in(settings: object) -> str | None:
    if not isinstance(settings, dict):
        return None
    if settings.get("load_in_4bit"):  # the only one that once left its name out
        return f"bitsandbytes in {four_bit_type(settings)}"
    method = settings.get("quant_method")
    kind = torchao_type(settings) if method == "torchao" else None
    return None if not method else f"{method} as {kind}" if kind else str(method)
