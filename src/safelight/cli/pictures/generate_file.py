"""`safelight generate --from FILE --out FOLDER`: the pictures of many prompts. It goes on where it was stopped."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from safelight.cli.given_files import locate_given
from safelight.cli.output import printable
from safelight.cli.pictures.manifest import FILE_NAME, Manifest
from safelight.cli.pictures.patience import deadline
from safelight.cli.pictures.picture_sources import LocalSource, Made, PictureSource, ServerSource, retrying
from safelight.cli.pictures.prompt_file import PromptLine, read_prompt_file
from safelight.errors import DeadlineExceeded, EngineFailure, InvalidRequest, SafelightError
from safelight.model.checkpoint import revision_of
from safelight.model.loras import locate_loras
from safelight.model.revision import hub_id_of
from safelight.serving.backends.registry import find_factory
from safelight.serving.start import create_dispatcher
from safelight.settings import DeploymentSettings, Settings, part_of

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
SERVER_CONCURRENCY = 8
"""Lines that a server works on at once: what one replica runs at once, unless it is told otherwise."""
SERVER_TIMEOUT_S = 3600.0
_SUFFIXES = {"jpeg": ".jpg"}
_ERRORS_OF_A_LINE = (InvalidRequest, EngineFailure, DeadlineExceeded)
"""Of any other error, the lines that follow would die too."""


@dataclass(slots=True)
class _Run:
    """What all workers share."""

    source: PictureSource
    manifest: Manifest
    progress: Progress
    task: TaskID
    num_failed: int = 0


class _Doing(ProgressColumn):
    """What the run does, or what it waits for."""

    def __init__(self, source: PictureSource) -> None:
        super().__init__(Column(no_wrap=True))
        self._source = source

    def render(self, task: Task) -> Text:
        return Text(f"Waiting for {self._source.awaited}" if self._source.awaited else task.description)


def generate_file(
    settings: Settings,
    source: str,
    folder: Path,
    *,
    server: str | None,
    concurrency: int | None,
    overwrite: bool,
    timeout: float | None,
    defaults: Mapping[str, object],
) -> int:
    """Make the lines of `source` that are not made yet. Returns the exit status: 1 if a line failed.

    Only `overwrite` lets pictures take the place of others. `timeout` is of a line with all its images, in seconds.

    Raises what keeps every line from being made; what was made until then stays.
    """
    timeout_s = deadline(timeout)
    console = Console(emoji=False, stderr=True, soft_wrap=True, highlight=False)
    lines = read_prompt_file(source, defaults)
    with Manifest(folder) as manifest:
        left = [line for line in lines if line.body is None or not manifest.is_made(line.number, line.body)]
        if not overwrite:
            for line in left:
                manifest.check_room(line.number, line.body)
        num_done, num_failed = len(lines) - len(left), 0
        if num_done:
            console.print(f"{num_done} of {len(lines)} lines are made already")
        try:
            if left:
                pictures, workers = _open(settings, server, concurrency, timeout_s)
                num_failed = asyncio.run(
                    _make_all(left, pictures, manifest, num_done=num_done, concurrency=workers, console=console)
                )
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here", style="yellow")
            return INTERRUPTED
        except SafelightError:
            console.print("stopped; when this is mended, the same command goes on from here", style="yellow")
            raise
    return _report(num_failed, len(lines), folder, console)


def _open(
    settings: Settings, server: str | None, concurrency: int | None, timeout_s: float
) -> tuple[PictureSource, int]:
    """Where the pictures come from, and how many lines it gets at once."""
    if server is not None:
        patience_s = timeout_s if math.isfinite(timeout_s) else SERVER_TIMEOUT_S
        source = ServerSource(server, api_key=settings.read_api_key(), timeout_s=patience_s)
        return source, concurrency or SERVER_CONCURRENCY
    workers = concurrency or 2 * settings.max_batch_size  # while some take steps, others are encoded and decoded
    return _local_source(settings, workers, timeout_s), workers


def _local_source(settings: Settings, concurrency: int, timeout_s: float) -> LocalSource:
    folder, spec = locate_given(settings)
    deployment = part_of(settings, DeploymentSettings, max_concurrent_requests_per_instance=concurrency)
    spec = replace(spec, loras=locate_loras(settings.loras))
    names = (spec.name, *filter(None, [hub_id_of(folder)]))
    dispatcher = create_dispatcher(find_factory(settings), settings, folder, spec, deployment=deployment)
    return LocalSource(dispatcher, names=names, revision=revision_of(folder), timeout_s=timeout_s)


def _report(num_failed: int, num_lines: int, folder: Path, console: Console) -> int:
    if not num_failed:
        console.print(f"[bold]{escape(str(folder))}[/]  {num_lines} lines made")
        return 0
    manifest = escape(str(folder / FILE_NAME))
    console.print(f"[red]{num_failed} of {num_lines} lines failed[/]; {manifest} says why")
    return 1


async def _make_all(
    lines: Sequence[PromptLine],
    source: PictureSource,
    manifest: Manifest,
    *,
    num_done: int,
    concurrency: int,
    console: Console,
) -> int:
    """Returns how many lines failed."""
    async with AsyncExitStack() as stack:
        with console.status(f"Waiting for {escape(source.model)} ..."):
            await stack.enter_async_context(source)
        manifest.check_model(source.model)
        _warn_of_other_revisions(source, manifest, console)
        columns = (
            _Doing(source),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("Developing", total=num_done + len(lines), completed=num_done)
            run = _Run(source, manifest, progress, task)
            todo = iter(lines)
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(concurrency, len(lines))):
                        workers.create_task(_work(run, todo))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            return run.num_failed


def _warn_of_other_revisions(source: PictureSource, manifest: Manifest, console: Console) -> None:
    others = manifest.other_revisions(source.revision) if source.revision else set()
    if others:
        names = escape(f"{source.model} {', '.join(sorted(others))}; those of this run are {source.revision}'s")
        console.print(f"[yellow]warning:[/] the folder has pictures of {names}")


async def _work(run: _Run, todo: Iterator[PromptLine]) -> None:
    """Take the next line until there is none; what is wrong with one does not end the others."""
    for line in todo:
        try:
            made = await _make(run.source, line)
        except _ERRORS_OF_A_LINE as error:
            run.num_failed += 1
            run.progress.console.print(f"[red]line {line.number}:[/] {escape(printable(error.message))}")
            entry, files = _failure(line, error)
        else:
            entry, files = _success(line, made, run.source)
        await asyncio.to_thread(run.manifest.add, entry, files)
        run.progress.advance(run.task)


async def _make(source: PictureSource, line: PromptLine) -> Made:
    if line.body is None:
        assert line.error is not None, "a line without a body has an error"
        raise line.error
    body = line.body
    return await retrying(lambda: source.make(body))


def _success(line: PromptLine, made: Made, source: PictureSource) -> tuple[dict[str, Any], dict[str, bytes]]:
    suffix = _SUFFIXES.get(made.image_format, f".{made.image_format}")
    stems = (
        [f"{line.number:06}"] if len(made.images) == 1 else [f"{line.number:06}-{i}" for i in range(len(made.images))]
    )
    files = {f"{stem}{suffix}": image.content for stem, image in zip(stems, made.images, strict=True)}
    entry = _about(line) | {
        "seed": made.images[0].seed,
        "files": list(files),
        "model": source.model,
        "revision": source.revision,
        "parameters": made.parameters,
        "warnings": list(made.warnings),
        "request": line.body,
    }
    return entry, files


def _failure(line: PromptLine, error: SafelightError) -> tuple[dict[str, Any], dict[str, bytes]]:
    field = error.field if isinstance(error, InvalidRequest) else None
    return _about(line) | {"error": {"message": error.message, "field": field}}, {}


def _about(line: PromptLine) -> dict[str, Any]:
    return {"line": line.number, **({"custom_id": line.custom_id} if line.custom_id else {}), "prompt": line.prompt}
