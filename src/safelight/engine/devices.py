"""Where the model runs, in which dtype, and in how much memory: what `auto` means on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from safelight.errors import ConfigurationError
from safelight.model.memory.plan import AS_STORED, Choice, DeviceFacts

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
RESERVE_BYTES = 512 * 1024**2
"""For the process itself: interpreter, libraries, buffers of the allocator."""
_CGROUP = Path("/sys/fs/cgroup")


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


def read_device_facts(device: torch.device, dtype: torch.dtype, allowed_bytes: int | None) -> DeviceFacts:
    """What is free now, and not more than `allowed_bytes`."""
    free = _free_bytes(device) - RESERVE_BYTES
    return DeviceFacts(
        type=device.type,
        free_bytes=max(0, free if allowed_bytes is None else min(free, allowed_bytes)),
        number_bytes=dtype.itemsize,
    )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    available = int(psutil.virtual_memory().available)
    limit = _limit_of_control_group()
    return available if limit is None else min(available, limit)


def _limit_of_control_group() -> int | None:
    """What a container may still take; files that are mapped can be forgotten, so they do not count."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = {line.split()[0]: int(line.split()[1]) for line in (_CGROUP / "memory.stat").read_text().splitlines()}
    except (OSError, ValueError, IndexError):
        return None
    return None if limit == "max" else int(limit) - used.get("anon", 0)
