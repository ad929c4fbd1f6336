"""Loads the components of a FLUX.1 checkpoint in the diffusers layout: networks, tokenizers, the schedule.

Everything is checked before anything is loaded, so that a broken folder is refused within milliseconds. Only
safetensors are read: other weight files can run code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FluxTransformer2DModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel
from transformers.utils import logging as transformers_logging

from safelight.engine.batch_invariance import make_batch_invariant
from safelight.engine.noise_schedulers import SchedulerConfig
from safelight.errors import ModelLoadError
from safelight.model_spec import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """One loaded checkpoint. diffusers and transformers are untyped, so their objects are Any here."""

    transformer: Any
    autoencoder: Any
    text_encoder: Any
    """CLIP."""
    text_encoder_2: Any
    """T5."""
    tokenizer: Any
    tokenizer_2: Any
    scheduler_config: SchedulerConfig
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Network:
    """A component with weights: the classes that may fill it, its file, and how its library is asked for a dtype."""

    name: str
    classes: tuple[Any, ...]
    weights: str
    dtype_argument: Literal["dtype", "torch_dtype"]


_NETWORKS = (
    _Network("transformer", (FluxTransformer2DModel,), "diffusion_pytorch_model", "torch_dtype"),
    _Network("vae", (AutoencoderKL, AutoencoderTiny), "diffusion_pytorch_model", "torch_dtype"),
    _Network("text_encoder", (CLIPTextModel,), "model", "dtype"),
    _Network("text_encoder_2", (T5EncoderModel,), "model", "dtype"),
)


def load_components(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Components:
    """Everything a FLUX.1 checkpoint needs to run. Raises ModelLoadError naming the file and the remedy."""
    _silence_loading()
    classes = {network.name: _check_network(folder, network) for network in _NETWORKS}
    scheduler_config = _read_scheduler_config(folder / "scheduler" / "scheduler_config.json")
    tokenizers = {name: _load_tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2")}
    networks = {
        network.name: _load_network(folder, network, classes[network.name], dtype).to(device) for network in _NETWORKS
    }
    networks["vae"].to(memory_format=torch.channels_last)  # convolutions on a CPU decode faster so
    if device.type == "cpu":
        make_batch_invariant(networks["transformer"])
    return Components(
        transformer=networks["transformer"],
        autoencoder=networks["vae"],
        text_encoder=networks["text_encoder"],
        text_encoder_2=networks["text_encoder_2"],
        tokenizer=tokenizers["tokenizer"],
        tokenizer_2=tokenizers["tokenizer_2"],
        scheduler_config=scheduler_config,
        device=device,
        dtype=dtype,
    )


TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
"""One of these holds the words. Without them transformers makes a tokenizer that knows none, and says nothing."""


def _read_scheduler_config(path: Path) -> SchedulerConfig:
    config = read_json(path)
    if not str(config.get("_class_name", "")).startswith("FlowMatch"):
        raise ModelLoadError(
            f"{path} is for {config.get('_class_name')}; FLUX.1 needs a FlowMatchEulerDiscreteScheduler's "
            "schedule there (a request's `scheduler` chooses the solver)"
        )
    return config


def _check_network(folder: Path, network: _Network) -> Any:
    """The class that model_index.json names for the component, once its files are known to be there."""
    class_name = _class_named_in_index(folder, network.name)
    accepted = {candidate.__name__: candidate for candidate in network.classes}
    if class_name not in accepted:
        raise ModelLoadError(
            f"{folder / 'model_index.json'}: {network.name} is {class_name or 'missing'}; a FLUX.1 checkpoint has "
            f"{' or '.join(accepted)} there"
        )
    read_json(folder / network.name / "config.json")
    _check_weights(folder / network.name, network.weights)
    return accepted[class_name]


def _class_named_in_index(folder: Path, component: str) -> str | None:
    """model_index.json has [library, class] for each component."""
    entry = read_json(folder / "model_index.json").get(component)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else None


def _check_weights(folder: Path, stem: str) -> None:
    whole = folder / f"{stem}.safetensors"
    if whole.exists():
        return
    index = folder / f"{stem}.safetensors.index.json"
    if index.exists():
        _check_shards(index)
        return
    others = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if others:
        raise ModelLoadError(
            f"{folder} has weights only as {others[0]}, which can run code when it is read; convert it to {whole.name}"
        )
    raise ModelLoadError(f"{whole} is missing; download the checkpoint again")


def _check_shards(index: Path) -> None:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelLoadError(f"{index} has no weight_map; download it again")
    for shard in sorted(set(shards.values())):
        if not (index.parent / shard).exists():
            raise ModelLoadError(f"{index.parent / shard} is missing, but {index.name} lists it; download it again")


def _load_network(folder: Path, network: _Network, component_class: Any, dtype: torch.dtype) -> Any:
    place = folder / network.name
    options: dict[str, Any] = {network.dtype_argument: dtype, "use_safetensors": True, "local_files_only": True}
    if network.dtype_argument == "dtype":
        options["ignore_mismatched_sizes"] = True  # transformers then reports them; diffusers raises with a reason
    loaded, report = _read(place, lambda: component_class.from_pretrained(place, output_loading_info=True, **options))
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ModelLoadError(
            f"{place} lacks {len(lacking)} of the weights that its config.json asks for, or has them in another shape "
            f"(such as {lacking[0]}); download the checkpoint again"
        )
    return loaded.eval().requires_grad_(False)


def _load_tokenizer(place: Path) -> Any:
    if not (place / "tokenizer_config.json").exists():
        raise ModelLoadError(f"{place / 'tokenizer_config.json'} is missing; download the checkpoint again")
    if not any(all((place / name).exists() for name in names) for names in TOKENIZER_FILES):
        raise ModelLoadError(
            f"{place} has no vocabulary ({', or '.join(' and '.join(names) for names in TOKENIZER_FILES)}); "
            "download the checkpoint again"
        )
    return _read(place, lambda: AutoTokenizer.from_pretrained(place, local_files_only=True))


def _read(place: Path, load: Callable[[], Any]) -> Any:
    """What `load` returns; whatever the libraries raise on a broken file becomes a ModelLoadError."""
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = f"{error}".strip().partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__
        raise ModelLoadError(f"{place} cannot be loaded: {reason}; download the checkpoint again") from error


def _silence_loading() -> None:
    """No bars and no remarks from the libraries: what matters becomes an error or a warning of ours."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
