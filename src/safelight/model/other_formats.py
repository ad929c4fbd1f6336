"""What a file or folder is that is no checkpoint in the diffusers layout, and what would work in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safelight.model.safetensors_head import read_shapes

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Weights that can run code when they are read."""
OTHER_WEIGHTS = (".gguf", ".onnx", ".msgpack", ".h5", ".sft", *PICKLES)
FILE_ENDINGS = (".safetensors", ".json", ".yaml", ".yml", ".zip", ".tar", ".gz", *OTHER_WEIGHTS)
"""Whatever ends so is a file, and no name of a model."""
_LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json")
_WHAT_IS_READ = "Safelight reads folders and hub ids in the diffusers layout (model_index.json beside its folders)"


def looks_like_path(name: str) -> bool:
    """Whether a name says by itself that it is none of a model: by its beginning, or by an ending that files have."""
    path = name.partition("@")[0]
    return name.startswith((".", "/", "~")) or "\\" in name or Path(path).suffix.lower() in FILE_ENDINGS


def explain_file(path: Path) -> str:
    """A sentence without its subject: `is ...; ...`."""
    if not path.is_file():  # a pipe would be waited for
        return f"is neither a file nor a folder; {_WHAT_IS_READ}"
    if _begins_with(path, b"GGUF") or path.suffix.lower() == ".gguf":
        return f"is a GGUF file, quantized, which is not read; {_WHAT_IS_READ}"
    names = _names_in(path)
    if any("lora" in name.lower() for name in names):
        return f"is a LoRA: serve the model that it changes, with --lora NAME={path}"
    if names:
        return f"is one file of weights, which is not read; {_WHAT_IS_READ}"
    if path.suffix.lower() in PICKLES:
        return f"is a pickle, which can run code when it is read; {_WHAT_IS_READ}"
    return f"is a file; {_WHAT_IS_READ}"


def explain_folder(names: Sequence[str]) -> str | None:
    """The same of a folder or repository without model_index.json; None if nothing in it tells what it is."""
    if "modular_model_index.json" in names:
        return f"is a modular pipeline, which is not read; {_WHAT_IS_READ}"
    if any(name in names for name in _LORA_FILES):
        return "is a LoRA: serve the model that it changes, with --lora NAME=PATH_OR_HUB_ID"
    weights = [name for name in names if Path(name).suffix.lower() in (".safetensors", *OTHER_WEIGHTS)]
    if "config.json" in names and weights:
        return f"is one component, not a checkpoint; {_WHAT_IS_READ}"
    if any(name.lower().endswith(".gguf") for name in names):
        return f"holds only GGUF files, quantized, which are not read; {_WHAT_IS_READ}"
    if weights:
        return f"holds no model_index.json, only {weights[0]}, which is not read; {_WHAT_IS_READ}"
    return None


def _begins_with(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def _names_in(path: Path) -> list[str]:
    """Of the tensors in a safetensors file, whatever it is called; none in another."""
    try:
        return list(read_shapes(path))
    except (OSError, ValueError, RecursionError):
        return []
