"""What a figure was measured on: the cores and what they multiply with, versions, and how busy they were."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "diffusers", "fastapi", "uvicorn", "litserve", "ray")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""As Linux names them; the widest decides what a batch gains."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where figures may be set beside those of another run."""

    cpu: str
    cores: int
    features: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu} ({', '.join(self.features) or platform.machine()})"


def this_machine() -> Machine:
    lines = _cpu_info()
    flags = set(lines.get("flags", "").split())
    return Machine(
        lines.get("model name") or platform.processor() or platform.machine(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        tuple(each for each in FEATURES if each in flags),
    )


def versions() -> dict[str, str]:
    """Of what takes part, as far as it is installed; and the commit."""
    found = {"python": platform.python_version(), "commit": _commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def load_average() -> float:
    """Processes that ran or waited for a core, in the last minute."""
    return round(os.getloadavg()[0], 1)


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no checkout"
