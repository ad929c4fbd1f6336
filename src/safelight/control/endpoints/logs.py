"""What a deployment has to tell: one file for the fetching of its model, one for its server, in the data directory."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from pathlib import Path
from typing import Literal

from safelight.control.store.tables import utc_now

logger = logging.getLogger(__name__)

Container = Literal["StorageInitializer", "InferenceServer"]
CONTAINERS: tuple[Container, ...] = ("StorageInitializer", "InferenceServer")
DEFAULT_TAIL = 5000
MAX_TAIL = 2**31 - 1
"""Azure's type of it is int32."""


class DeploymentLogs:
    """The logs of all deployments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, endpoint_name: str, deployment_name: str) -> DeploymentLog:
        return DeploymentLog(self._folder / endpoint_name.lower() / deployment_name.lower())


class DeploymentLog:
    """The log of one deployment. Lines are short and rare, so writing one does not leave the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, message: str, container: Container = "InferenceServer") -> None:
        """Add a line. Where there is no room for it nothing fails: what is done matters more than its log."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._folder / f"{container}.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{utc_now():%Y-%m-%dT%H:%M:%SZ} {message}\n")
        except OSError as error:
            logger.warning("%s cannot be written (%s): %s", self._folder, error.strerror, message)

    def read(self, container: Container | None = None, *, tail: int = DEFAULT_TAIL) -> str:
        """The last lines: of one container, or of both in the order of their work."""
        lines: deque[str] = deque(maxlen=max(tail, 0))
        for each in CONTAINERS if container is None else (container,):
            path = self._folder / f"{each}.log"
            if path.exists():
                with path.open(encoding="utf-8", errors="replace") as file:  # a full disk cuts a character in two
                    lines.extend(file)
        return "".join(lines)

    def delete(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
