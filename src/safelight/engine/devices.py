"""Where the model runs and in which precision: what `auto` means on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from safelight.errors import ConfigurationError
from safelight.model.memory_plan import AS_STORED, Choice

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `mps`, `cuda` or `cuda:N`. Raises ConfigurationError if this machine has none."""
    if name == "auto":
        return torch.device(_best_device_type())
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"device {name!r} is unknown; use auto, cuda, mps or cpu") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device {name} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs; "
            "install a torch build for your GPU, or use device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device mps is not there: torch sees no Apple GPU; use device cpu")
    return device


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """In what a model is kept, and in what it computes."""

    computation: torch.dtype
    """Of what goes into the networks: inputs are cast to it, and LoRAs, prompts and latents are kept in it."""
    choice: Choice = AS_STORED
    """In how many bytes its networks are kept, and where they wait."""


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype for `auto`, `bfloat16`, `float16` or `float32`. Raises ConfigurationError."""
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise ConfigurationError(f"dtype {name!r} is unknown; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; where it does not, fp32 is faster and more exact."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return True
    # An older torch has none of these; fp32 is always right.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


def _best_device_type() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
