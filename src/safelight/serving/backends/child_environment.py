"""What a replica's process sees of the environment, and why: the one place for threads, OpenMP's waiting, and the GPU.

By default an OpenMP thread that has finished its share of a parallel region spins, on the guess that the next region
comes soon. In a server that guess burns the cores that the gateway's event loop and the other replicas need, and the
loop in turn preempts threads that everybody else is spinning for: on contended cores a step takes several times as long
(`python -m benchmarks.waiting`; docs/decisions/0003-a-replica-is-a-process.md). So waiting threads sleep
(`OMP_WAIT_POLICY`; `GOMP_SPINCOUNT` for GNU's and `KMP_BLOCKTIME` for LLVM's and Intel's runtime), and the replicas
share the cores out between them. The variables are read when the runtime is loaded, which is why they are set here,
before the process starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RAY_AUTH_TOKEN")
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


def child_environment(
    environment: Mapping[str, str], *, num_threads: int, replica_index: int = 0, gpus: Sequence[str] = ()
) -> dict[str, str]:
    """The gateway's environment without its secrets and settings, and with what the model's threads need.

    Settings come by message (`Load`), so no `SAFELIGHT_*` variable is passed on: some of them are keys; so may be what
    `OTEL_*` says, and traces are the gateway's. A wait policy that is already set is somebody's choice and stays. Of
    several GPUs each replica sees its own.
    """
    kept = {name: value for name, value in environment.items() if not is_private(name)}
    ours = dict.fromkeys(_THREAD_COUNTS, str(num_threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    if len(gpus) > 1:
        ours["CUDA_VISIBLE_DEVICES"] = gpus[replica_index % len(gpus)]
    return _PASSIVE_WAITING | kept | ours


def share_of_cores(num_replicas: int) -> int:
    """CPU threads for each of several replicas, at least one."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, num_cores // num_replicas)


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The NVIDIA GPUs of this machine that a process may use, as CUDA_VISIBLE_DEVICES names them. Needs no torch."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    num_gpus = sum(1 for _ in _NVIDIA_GPUS.iterdir()) if _NVIDIA_GPUS.is_dir() else 0
    return [str(index) for index in range(num_gpus)]


def is_private(name: str) -> bool:
    """Whether a variable may hold a secret, or what no child needs."""
    return name.upper().startswith(("SAFELIGHT_", "OTEL_")) or name in _SECRETS
