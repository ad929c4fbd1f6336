"""What a route of any dialect does with a valid request: wait for its pictures, or let a job watch them develop."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import replace

from fastapi import Request
from starlette.requests import ClientDisconnect

from safelight.api.http.disconnect import while_connected
from safelight.control.jobs.queue import Run
from safelight.errors import InvalidRequest, SafelightError
from safelight.picture.files import MEDIA_TYPES
from safelight.picture.generation import Completed, Failed, GenerationRequest, GenerationResult, Preview, Step
from safelight.serving.dispatcher import Dispatcher

JOB_PREVIEWS = 3
JOB_TIMEOUT_S = 24 * 60 * 60.0
"""No client waits on the line, so that the timeout of requests is none of a job's."""

MIN_TIMEOUT_S = 0.001


async def generate(request: Request, dispatcher: Dispatcher, generation_request: GenerationRequest) -> GenerationResult:
    """The result, for as long as someone waits for it. Raises ClientDisconnect, or what ended the work."""
    run = run_of(request)
    work = dispatcher.generate(generation_request) if run is None else _watch(run, dispatcher, generation_request)
    return await while_connected(request, work)


def refuse_if_full(request: Request, dispatcher: Dispatcher) -> None:
    """Before the body is read, which would be for nothing. A job waits for its turn elsewhere.

    Raises Overloaded or NotReady.
    """
    if run_of(request) is None:
        dispatcher.check_at_door()


async def held_while_loading(
    request: Request, dispatcher: Dispatcher, generation_request: GenerationRequest
) -> GenerationRequest:
    """The request as soon as a replica is ready, with what is left of its timeout. A job is sent again instead.

    Raises ClientDisconnect, NotReady or Overloaded.
    """
    if run_of(request) is not None or dispatcher.is_ready:
        dispatcher.note_use()  # its body may have taken longer than a model stays that nobody asks for
        return generation_request
    timeout_s, started_at = generation_request.timeout_s, time.monotonic()
    await while_connected(request, dispatcher.wait_while_loading(timeout_s))
    return replace(generation_request, timeout_s=max(timeout_s - (time.monotonic() - started_at), MIN_TIMEOUT_S))


def refuse_stream_in_job(request: Request, field: str) -> None:
    """Raises InvalidRequest if the answer is kept: nobody would read it while it is made."""
    if run_of(request) is not None:
        raise InvalidRequest(
            "a stream is told while it happens and cannot be kept; leave out the stream, or Prefer: respond-async and "
            "Idempotency-Key",
            field=field,
        )


def put_off(request: Request, error: SafelightError) -> None:
    """The pictures are made, and what is left cannot be done now: a job's request is sent again later."""
    if (run := run_of(request)) is not None:
        run.error = error


def run_of(request: Request) -> Run | None:
    """The run of a job that this request is; None if a client waits for the answer itself."""
    run: Run | None = request.scope.get("state", {}).get("run")
    return run


async def _watch(run: Run, dispatcher: Dispatcher, generation_request: GenerationRequest) -> GenerationResult:
    """The result; how it comes about is told to `run`, with previews."""
    run.is_valid = True
    if run.is_check:
        raise ClientDisconnect
    run.steps = dict.fromkeys(range(generation_request.num_images_per_prompt), 0)
    run.preview_media_type = MEDIA_TYPES[generation_request.image_format]
    try:
        patient = replace(generation_request, num_previews=JOB_PREVIEWS, timeout_s=JOB_TIMEOUT_S)
        async with aclosing(dispatcher.stream(patient)) as events:
            async for event in events:
                match event:
                    case Step():
                        run.steps[event.image_index], run.num_steps = event.index, event.of
                    case Preview(image_index=0):
                        run.preview = event.content
                    case Completed():
                        return event.result
                    case Failed():
                        raise event.error
    except SafelightError as error:
        run.error = error
        raise
    raise AssertionError("a stream ended without Completed or Failed")
