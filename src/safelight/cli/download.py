"""A model's folder, downloaded if it is not here: on a terminal with one bar, elsewhere with a few lines."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from safelight.model import hub
from safelight.server.endpoints.download_progress import DownloadProgress


def download(hub_id: str, revision: str | None, components: Collection[str] | None = None) -> Path:
    """The local folder of a hub model, of its newest revision if None; given `components`, with their weights only.

    Raises DownloadError or ModelLoadError.
    """
    console = Console(emoji=False, stderr=True, highlight=False, soft_wrap=True)
    of = "" if components is None else f"{', '.join(sorted(components)) or 'configs and tokenizers'} of "
    console.print(f"Fetching {of}{hub_id} (what has arrived before is kept) ...")
    fetch = partial(hub.download_model, hub_id, revision=revision, components=components)
    if not console.is_terminal:
        return fetch(report=DownloadProgress(hub_id, console.print).report)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        return fetch(report=_Bar(progress).report)


class _Bar:
    """The bar of one download; it appears when there is something to download."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def report(self, num_here: int, total: int) -> None:
        if not self._progress.tasks:
            self._progress.add_task("Downloading", total=total, completed=num_here)
        self._progress.update(self._progress.task_ids[0], completed=num_here)
