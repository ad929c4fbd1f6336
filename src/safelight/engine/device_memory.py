"""How much of a device is free, for a plan."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from safelight.model.memory_plan import DeviceFacts

RESERVE_BYTES = 512 * 1024**2
"""For the process itself: interpreter, libraries, buffers of the allocator."""
_CGROUP = Path("/sys/fs/cgroup")


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
