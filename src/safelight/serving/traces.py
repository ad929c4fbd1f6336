"""The spans of a request's pictures, made in the gateway of what its replica tells, wherever that runs.

    generate -> queue, encode, step, step, ..., decode, image_encode        (docs/decisions/0038)

The clocks of two processes have nothing in common: a stage is placed by the time since the request arrived.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from safelight.model.spec import ModelSpec
from safelight.picture.generation import Completed, Event, Failed, GenerationRequest, Stage
from safelight.telemetry.spans import Attributes, Span


async def traced(
    parent: Span, events: AsyncGenerator[Event, None], request: GenerationRequest, spec: ModelSpec
) -> AsyncGenerator[Event, None]:
    """The events that are for the client; the stages become spans."""
    arrived_ns = time.time_ns()
    span, is_waiting, is_over = parent.child("generate", attributes_of(request, spec)), True, False
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Stage):
                    is_waiting = False
                    _tell_stage(span, event, arrived_ns)
                    continue
                is_over = isinstance(event, Completed | Failed)
                if isinstance(event, Failed):
                    span.fail(type(event.error).__name__)
                yield event
    finally:
        if is_waiting:
            span.child("queue", started_ns=arrived_ns).end()
        if not is_over:
            span.note("the client left")
        span.end()


def attributes_of(request: GenerationRequest, spec: ModelSpec) -> Attributes:
    """What was asked, but for the words and the pictures."""
    return {
        "safelight.model": spec.name,
        "safelight.width": request.width,
        "safelight.height": request.height,
        "safelight.num_inference_steps": request.num_inference_steps,
        "safelight.scheduler": request.scheduler,
        "safelight.num_images": request.num_images_per_prompt,
        "safelight.is_guided": request.is_guided,
        "safelight.is_edit": request.source is not None,
        "safelight.num_loras": len(request.loras),
        "safelight.generation_id": request.id,
    }


def _tell_stage(span: Span, stage: Stage, arrived_ns: int) -> None:
    attributes: dict[str, str | int] = {
        "safelight.image_index": stage.image_index,
        "host.name": stage.host,
        "process.pid": stage.pid,
    }
    if stage.step:
        attributes |= {"safelight.step": stage.step, "safelight.batch_rows": stage.num_rows}
    started_ns = arrived_ns + int(stage.began_s * 1e9)
    child = span.child(stage.name, attributes, started_ns=started_ns)
    child.end(ended_ns=started_ns + int(stage.seconds * 1e9))
