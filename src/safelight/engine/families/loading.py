"""Loads the components of a checkpoint in the diffusers layout, of any family: networks, tokenizers, the schedule.

Everything is checked before anything is loaded, so that a broken folder is refused within milliseconds. Only
safetensors are read: other weight files can run code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from safelight.engine.batch_invariance import make_batch_invariant
from safelight.engine.denoising.noise_schedulers import SchedulerConfig, build_noise_scheduler
from safelight.engine.devices import Precision
from safelight.engine.families.weight_heads import check_weights
from safelight.engine.weights.component_tensors import component_tensors
from safelight.engine.weights.files import FileTensor
from safelight.engine.weights.lean_loading import check_network, load_network
from safelight.engine.weights.placement import place, waiting_place
from safelight.errors import ModelLoadError, OutOfMemory, SafelightError, UnsupportedModel
from safelight.model.configs import INDEX, class_in_index, read_json
from safelight.model.families.layout import Layout
from safelight.model.memory.exhausted import is_out_of_memory
from safelight.model.memory.plan import is_mapped
from safelight.model.weight_files import PLAIN_WEIGHTS, Network, find_weights

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """diffusers and transformers are untyped, so their objects are Any here."""

    networks: Mapping[str, Any]
    """By the names of the folder; of all families `transformer` and `vae`."""
    tokenizers: Mapping[str, Any]
    scheduler_config: SchedulerConfig


def load_parts(
    folder: Path,
    layout: Layout,
    classes: Sequence[Any],
    *,
    device: torch.device,
    precision: Precision,
    schedulers: Sequence[str],
) -> Parts:
    """All that a checked folder of the layout holds, with which each of `schedulers` works.

    `classes` are those that fill the networks. Raises UnsupportedModel or ModelLoadError, naming file and remedy.
    """
    silence_loading()
    sources = [find_source(folder, network, classes) for network in layout.networks]
    config_path = folder / "scheduler" / "scheduler_config.json"
    scheduler_config = _read_scheduler_config(config_path, layout.title, schedulers)
    tokenizers = {
        name: _load_tokenizer(folder / name) for name in layout.without_weights if name.startswith("tokenizer")
    }
    for source in sources:
        check_source(source)
    opened = [_read(source.place, partial(_open, source)) for source in sources]
    for source, tensors in zip(sources, opened, strict=True):
        if source.is_single:  # of a set the heads have been compared
            _read(source.place, partial(check_network, partial(make_network, source), tensors))
    networks = {
        source.network.name: _load_network(source, tensors, device, precision)
        for source, tensors in zip(sources, opened, strict=True)
    }
    networks["vae"].to(memory_format=torch.channels_last)  # convolutions on a CPU decode faster so
    if device.type == "cpu":
        make_batch_invariant(networks["transformer"])
    place(networks, precision.choice, device)
    return Parts(networks=networks, tokenizers=tokenizers, scheduler_config=scheduler_config)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights of a component are, and the class that they are for."""

    place: Path
    network: Network
    component_class: Any
    paths: Sequence[Path]
    index: Path | None
    """That lists them."""
    is_single: bool

    @property
    def files(self) -> list[Path]:
        return [*self.paths, *([] if self.index is None else [self.index])]


def find_source(folder: Path, network: Network, classes: Sequence[Any]) -> Source:
    """`classes` are those that fill the networks. Raises UnsupportedModel or ModelLoadError."""
    class_name = class_in_index(read_json(folder / INDEX), network.name)
    component_class = next(each for each in classes if each.__name__ == class_name)
    weights, paths = find_weights(folder, network)
    place = folder / network.name
    index = place / weights.name if weights.is_index else None
    return Source(place, network, component_class, paths, index, weights.is_single)


def check_source(source: Source) -> None:
    """Whether a set of files has all that the config asks for, and no more. Raises UnsupportedModel or ModelLoadError.

    A single file is checked when it is read.
    """
    if not source.is_single:
        _read(source.place, partial(check_weights, source.place, source.paths, source.component_class))


_MOST_NOISE = 1.001
"""The share with which all begins is 1, or as near as fp32 comes."""
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
"""One of these holds the words. Without them transformers makes a tokenizer that knows none, and says nothing."""


def _read_scheduler_config(path: Path, title: str, schedulers: Sequence[str]) -> SchedulerConfig:
    config = read_json(path)
    if not str(config.get("_class_name", "")).startswith("FlowMatch"):
        raise UnsupportedModel(
            f"{path} is for {config.get('_class_name')}; {title} needs a FlowMatchEulerDiscreteScheduler's schedule "
            "there (a request's `scheduler` chooses the solver)"
        )
    for name in schedulers:
        try:
            _check_sigmas(build_noise_scheduler(name, config, num_inference_steps=4, image_seq_len=256).sigmas)
        except Exception as error:  # whatever diffusers raises, each request would end with it
            used = ", ".join(key for key, value in config.items() if key.startswith("use_") and value)
            raise UnsupportedModel(
                f"{path} makes no schedule with {name}: {_first_sentence(error)}; change its options there"
                + (f" ({used})" if used else "")
            ) from error
    return config


def _check_sigmas(sigmas: Tensor) -> None:
    if not bool(sigmas.isfinite().all()) or sigmas.min() < 0 or sigmas.max() > _MOST_NOISE:
        raise ValueError("its shares of noise are not between 0 and 1")


def try_prompt(folder: Path, encode: Callable[[str], object], encoder: nn.Module) -> None:
    """What the libraries read of a config only when they work with it would fail each request; here it fails the load.

    But not with the real T5, which would keep a CPU for half a minute. Raises ModelLoadError.
    """
    if is_mapped(sum(tensor.nbytes for tensor in (*encoder.parameters(), *encoder.buffers()))):
        return
    with torch.inference_mode():
        _read(folder, partial(encode, "a"))


def _open(source: Source) -> Mapping[str, FileTensor]:
    return component_tensors(source.place.parent, source.network, read_json(source.place / "config.json"))


def _load_network(source: Source, tensors: Mapping[str, FileTensor], device: torch.device, precision: Precision) -> Any:
    place, network = source.place, source.network
    return _read(
        place,
        lambda: load_network(
            partial(make_network, source),
            tensors,
            quantization=precision.choice.quantization_of(network.name),
            dtype=precision.computation,
            device=waiting_place(network.name, precision.choice, device),
        ),
    )


def make_network(source: Source) -> Any:
    """The network of a config, with weights that say nothing."""
    component_class, place = source.component_class, source.place
    if issubclass(component_class, ModelMixin):
        return component_class.from_config(component_class.load_config(place, local_files_only=True))
    return component_class(component_class.config_class.from_pretrained(place, local_files_only=True))


def _load_tokenizer(place: Path) -> Any:
    return _read(place, partial(_open_tokenizer, place))


def _open_tokenizer(place: Path) -> Any:
    if not (place / "tokenizer_config.json").exists():
        raise ModelLoadError(f"{place / 'tokenizer_config.json'} is missing; download the checkpoint again")
    if not any(all((place / name).exists() for name in names) for names in TOKENIZER_FILES):
        raise ModelLoadError(
            f"{place} has no vocabulary ({', or '.join(' and '.join(names) for names in TOKENIZER_FILES)}); "
            "download the checkpoint again"
        )
    for path in sorted(place.iterdir()):
        if path.suffix in (".json", ".txt", ".model") and path.stat().st_size > _MAX_TOKENIZER_BYTES:
            raise ModelLoadError(f"{path} is too large for a file of a tokenizer; download it again")
    return AutoTokenizer.from_pretrained(place, local_files_only=True)


_MAX_TOKENIZER_BYTES = 64 * 1024**2
"""T5's largest has 2 MB."""


def _read(place: Path, load: Callable[[], T]) -> T:
    """What `load` returns; whatever the libraries raise on a broken file becomes a ModelLoadError."""
    try:
        return load()
    except (SafelightError, KeyboardInterrupt, SystemExit):
        raise
    except ImportError as error:
        raise UnsupportedModel(
            f"{place} needs a package that is not installed: {_first_sentence(error)}; {PLAIN_WEIGHTS}"
        ) from error
    except BaseException as error:  # a panic of a Rust library is no Exception
        if is_out_of_memory(error):
            raise OutOfMemory(f"there was no memory for {place} ({_first_sentence(error)})") from error
        raise ModelLoadError(
            f"{place} cannot be loaded: {_first_sentence(error)}; download the checkpoint again"
        ) from error


def _first_sentence(error: BaseException) -> str:
    return f"{error}".strip().partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__


def silence_loading() -> None:
    """No bars and no remarks from the libraries: what matters becomes an error or a warning of ours."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
