"""One request, made by a replica of our own: it is started, used once and stopped, and a terminal sees each step."""

from __future__ import annotations

from contextlib import aclosing

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from safelight.picture.generation import Completed, Failed, GenerationRequest, GenerationResult, Step
from safelight.serving.dispatcher import Dispatcher


async def make_pictures(dispatcher: Dispatcher, request: GenerationRequest, console: Console) -> GenerationResult:
    """Run one request on a replica of our own, and show each step."""
    await dispatcher.start()
    try:
        with console.status(f"Loading {escape(dispatcher.spec.name)} ..."):
            await dispatcher.wait_until_ready()
        return await _develop(dispatcher, request, console)
    finally:
        await dispatcher.stop()


async def _develop(dispatcher: Dispatcher, request: GenerationRequest, console: Console) -> GenerationResult:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        steps = progress.add_task("Developing", total=request.num_inference_steps * request.num_images_per_prompt)
        async with aclosing(dispatcher.stream(request)) as events:
            async for event in events:
                match event:
                    case Step():
                        progress.update(steps, advance=1, total=event.of * request.num_images_per_prompt)
                    case Completed():
                        return event.result
                    case Failed():
                        raise event.error
    raise AssertionError("a stream ended without Completed or Failed")
