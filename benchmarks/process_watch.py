"""What another process has taken, several times a second: seconds of CPU, and memory of its own or of files mapped."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one process at one moment."""

    at: float
    """As `time.perf_counter` tells it."""
    cpu_s: float
    private_bytes: int
    mapped_bytes: int


class ReplicaWatch:
    """Follows the replica that this process, or one of its children, starts inside the block."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ReplicaWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_between(self, start: float, stop: float) -> float:
        return self._cpu_at(stop) - self._cpu_at(start)

    def peak(self) -> Sample:
        """When it held most, own and mapped together."""
        return max(self.samples, key=lambda each: each.private_bytes + each.mapped_bytes)

    def peak_private_bytes(self) -> int:
        return max(each.private_bytes for each in self.samples)

    def _cpu_at(self, moment: float) -> float:
        return min(self.samples, key=lambda each: abs(each.at - moment)).cpu_s

    def _run(self) -> None:
        process = None
        while not self._ended.wait(INTERVAL_S):
            process = process or _find_replica()
            if process is not None:
                try:
                    self.samples.append(_read(process))
                except (psutil.NoSuchProcess, OSError, KeyError):
                    process = None


def _find_replica() -> psutil.Process | None:
    for child in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if "safelight.serving.replica.process" in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


def _read(process: psutil.Process) -> Sample:
    times = process.cpu_times()
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    values = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    private, mapped = (int(values[name][0]) * 1024 for name in ("RssAnon", "RssFile"))
    return Sample(time.perf_counter(), times.user + times.system, private, mapped)
