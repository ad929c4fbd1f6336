"""What a file or folder is that is no checkpoint in the diffusers layout, and what would work in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safelight.errors import ModelLoadError
from safelight.model.heads.file_head import is_weights, read_head
from safelight.model.single_files.foreign import explain_foreign

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Weights that can run code when they are read."""
SINGLE_FILES = (".gguf", ".safetensors", ".sft")
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
    """Of one that is given where a folder is asked for: a sentence without its subject, `is ...; ...`."""
    if not path.is_file():  # a pipe would be waited for
        return f"is neither a file nor a folder; {_WHAT_IS_READ}"
    if path.suffix.lower() in PICKLES:
        return "is a pickle, which can run code when it is read; convert it to safetensors"
    if not looks_like_weights(path):
        return f"is a file; {_WHAT_IS_READ}"
    try:
        names = read_head(path).tensors
    except ModelLoadError as error:
        return error.message.removeprefix(f"{path} ")
    return explain_foreign(path, names) or (
        "is one file of weights; make a model of it with `safelight model create --name NAME --path FILE`, and name "
        "that"
    )


def looks_like_weights(path: Path) -> bool:
    """By its ending, or by how it begins."""
    try:
        return path.suffix.lower() in (*SINGLE_FILES, *PICKLES) or is_weights(path)
    except OSError:
        return False


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
        return "holds GGUF files without the rest of a checkpoint; download the one that you want, and give that file"
    if weights:
        return f"holds no model_index.json, only {weights[0]}; give that file, if it is FLUX.1's transformer"
    return None
