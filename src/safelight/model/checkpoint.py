"""What a model folder is, by its configs alone: a FLUX.1 checkpoint in the diffusers layout, or refused by name.

Needs neither weights nor torch: the gateway refuses before a replica starts, and a download before its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.other_formats import explain_folder
from safelight.model.revision import hub_id_of

INDEX = "model_index.json"
SERVED_PIPELINES = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
"""By their exact names, since their networks are the same. Those of Fill, Kontext and FLUX.2 begin with Flux too."""
PLAIN_WEIGHTS = "use the weights that it was made from, in bfloat16, float16 or float32 and the diffusers layout"


@dataclass(frozen=True, slots=True)
class Network:
    """A component with weights: the classes that may fill it, and what its library calls the file."""

    name: str
    classes: tuple[str, ...]
    stem: str
    """Of the weights' file: `diffusion_pytorch_model` if diffusers wrote it, `model` if transformers did."""


NETWORKS = (
    Network("transformer", ("FluxTransformer2DModel",), "diffusion_pytorch_model"),
    Network("vae", ("AutoencoderKL", "AutoencoderTiny"), "diffusion_pytorch_model"),
    Network("text_encoder", ("CLIPTextModel",), "model"),
    Network("text_encoder_2", ("T5EncoderModel",), "model"),
)
WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "tokenizer_2")
QUANTIZER_FILES = {
    "quanto_qmap.json": "quanto",
    "quantization_config.json": "SDNQ",
    "hf_quant_config.json": "ModelOpt",
}
"""Written beside the weights by libraries that leave config.json as it was."""


def check_checkpoint(folder: Path) -> None:
    """Raises UnsupportedModel for what Safelight does not serve, ModelLoadError if a config is missing or broken."""
    index = _read_index(folder)
    _check_pipeline(folder, index)
    for network in NETWORKS:
        _check_class(folder, network, class_in_index(index, network.name))
    _check_nothing_else(folder, index)
    for network in NETWORKS:
        _check_not_quantized(folder, network.name)
    _check_channels(folder)
    _check_rotation(folder)
    _check_widths(folder)


def class_in_index(index: Mapping[str, Any], component: str) -> str | None:
    """The class of a component; model_index.json has [library, class] for each, and [null, null] for none."""
    entry = index.get(component)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises ModelLoadError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(
            f"{path} is missing: {path.parent} is not a complete checkpoint in the diffusers layout"
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} must hold a JSON object")
    return value


def _read_index(folder: Path) -> dict[str, Any]:
    if folder.is_dir():
        names = list_names(folder)
        explanation = None if INDEX in names else explain_folder(names)
        if explanation is not None:
            raise UnsupportedModel(f"{_named(folder)} {explanation}")
    return read_json(folder / INDEX)


def list_names(folder: Path) -> list[str]:
    """Of what lies in a folder; none if there is no folder. Raises ModelLoadError if it may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelLoadError(f"{folder} cannot be read: {error.strerror}") from None


def _named(folder: Path, file: str = "") -> str:
    """The folder, or a file in it, as its user knows it: by the hub id, if it lies in the hub's cache."""
    return "/".join(filter(None, (hub_id_of(folder) or str(folder), file)))


def _check_pipeline(folder: Path, index: Mapping[str, Any]) -> None:
    pipeline = index.get("_class_name")
    if pipeline not in SERVED_PIPELINES:
        raise UnsupportedModel(
            f"{_named(folder)} holds a {pipeline or 'pipeline without a name'}, which Safelight does not serve; it "
            f"serves FLUX.1 checkpoints in the diffusers layout: {', '.join(SERVED_PIPELINES)}"
        )


def _check_class(folder: Path, network: Network, class_name: str | None) -> None:
    if class_name not in network.classes:
        raise UnsupportedModel(
            f"{_named(folder, INDEX)}: {network.name} is {class_name or 'missing'}; a FLUX.1 checkpoint has "
            f"{' or '.join(network.classes)} there"
        )
    own_name = read_json(folder / network.name / "config.json").get("_class_name", class_name)
    if own_name != class_name:
        raise UnsupportedModel(
            f"{_named(folder, network.name)}/config.json is of a {own_name}, but {INDEX} says {class_name}; download "
            "the checkpoint again"
        )


def _check_nothing_else(folder: Path, index: Mapping[str, Any]) -> None:
    """A ControlNet or an image encoder is part of what the checkpoint does, and would be left out."""
    known = {*WITHOUT_WEIGHTS, *(network.name for network in NETWORKS)}
    others = {name: class_name for name in index.keys() - known if (class_name := class_in_index(index, name))}
    if others:
        listed = ", ".join(f"{name} ({class_name})" for name, class_name in sorted(others.items()))
        raise UnsupportedModel(
            f"{_named(folder)} has more than a FLUX.1 checkpoint, and Safelight would leave it out: {listed}; serve "
            f"the checkpoint without it (its {INDEX} then has [null, null] there)"
        )


def _check_not_quantized(folder: Path, component: str) -> None:
    place = folder / component
    config = read_json(place / "config.json")
    method = next((name for file, name in QUANTIZER_FILES.items() if (place / file).exists()), None)
    settings = config.get("quantization_config") or config.get("compression_config")
    if settings:
        method = _method_in(settings) or method or "a method that its config.json does not name"
    if method is not None:
        raise UnsupportedModel(
            f"{_named(folder, component)} is quantized with {method}, which is not read; {PLAIN_WEIGHTS}"
        )


def _method_in(settings: object) -> str | None:
    if not isinstance(settings, dict):
        return None
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):  # the only one that once left its name out
        return "bitsandbytes"
    return str(settings["quant_method"]) if settings.get("quant_method") else None


def _check_channels(folder: Path) -> None:
    path, config = _config_of(folder, "transformer")
    takes = _size(path, config, "in_channels", 64)
    makes = _size(path, config, "out_channels", takes) * _size(path, config, "patch_size", 1) ** 2
    if takes != makes:
        raise UnsupportedModel(
            f"{path} takes {takes} channels and makes {makes}: a model such as FLUX.1 Fill or Control, which starts "
            f"from more than noise, and which Safelight does not serve; it serves those of a {SERVED_PIPELINES[0]}"
        )


def _check_rotation(folder: Path) -> None:
    """Positions turn each attention head as a whole."""
    path, config = _config_of(folder, "transformer")
    axes, head = config.get("axes_dims_rope", [16, 56, 56]), _size(path, config, "attention_head_dim", 128)
    if not isinstance(axes, list) or len(axes) != 3 or any(not isinstance(axis, int) for axis in axes):
        raise ModelLoadError(f"{path} has axes_dims_rope {axes!r}, not three numbers; download the checkpoint again")
    if sum(axes) != head:
        raise UnsupportedModel(
            f"{path} has axes_dims_rope {axes}, which do not add up to its attention_head_dim, {head}; download the "
            "checkpoint again"
        )


def _check_widths(folder: Path) -> None:
    """The transformer reads what the others make; where they do not fit every request would fail."""
    path, config = _config_of(folder, "transformer")
    for key, default, component, its_key, its_default, factor in _WIDTHS:
        its_path, its_config = _config_of(folder, component)
        wanted = _size(path, config, key, default)
        given = _size(its_path, its_config.get("text_config") or its_config, its_key, its_default) * factor
        if wanted != given:
            raise UnsupportedModel(
                f"{path} has {key} {wanted}, but {its_key} of the {component} makes {given}: the two do not belong "
                "together; download the checkpoint again"
            )


_WIDTHS = (
    ("in_channels", 64, "vae", "latent_channels", 4, 4),
    ("pooled_projection_dim", 768, "text_encoder", "hidden_size", 512, 1),
    ("joint_attention_dim", 4096, "text_encoder_2", "d_model", 512, 1),
)
"""What the transformer's config says; which component's config says the same, and how often. With their defaults."""


def _config_of(folder: Path, component: str) -> tuple[str, dict[str, Any]]:
    """What the config is called, and what it says."""
    return _named(folder, f"{component}/config.json"), read_json(folder / component / "config.json")


def _size(path: str, config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or value < 1:
        raise ModelLoadError(f"{path} has {key} {value!r}, not a number of at least 1; download the checkpoint again")
    return value
