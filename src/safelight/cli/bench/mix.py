"""What requests ask for: sizes and steps by weight, prompts that do not repeat soon."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safelight.errors import InvalidRequest

MAX_SIDE = 16_384
MAX_STEPS = 1_000
MAX_SEED = 2**32 - 1
"""Which every server takes, whatever holds its numbers."""
_SHAPE = re.compile(
    r"(?:(?P<width>\d{1,5})x(?P<height>\d{1,5}))?(?:@(?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?)?"
    r"(?::(?P<weight>\d{1,6}(?:\.\d{1,6})?))?",
    re.ASCII,
)
_THINGS = ("fox", "cat", "car", "house", "tree", "boat", "robot", "astronaut", "bird", "lamp", "clock", "horse")
_COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
_PLACES = ("in the snow", "on a beach", "in a forest", "by a lake", "in a city at night", "on the moon", "in a garden")
_STYLES = ("a photograph", "an oil painting", "a watercolour", "a pencil drawing")


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request. A size or steps of None are left to the server."""

    name: str
    width: int | None = None
    height: int | None = None
    steps: range | None = None
    """Each as likely as the others."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One request."""

    shape: Shape
    prompt: str
    steps: int | None
    seed: int


def parse_mix(text: str) -> tuple[Shape, ...]:
    """`256x256@4:9,512x512@8-16:1` as shapes. Raises InvalidRequest."""
    return tuple(_parse_shape(each.strip()) for each in text.split(","))


def pictures(shapes: Sequence[Shape], prompts: Sequence[str], seed: int) -> Iterator[Picture]:
    """Without end, and the same for the same seed: so two servers are asked the same."""
    draw = random.Random(seed)
    weights = [shape.weight for shape in shapes]
    index = 0
    while True:
        (shape,) = draw.choices(shapes, weights)
        prompt = prompts[index % len(prompts)] if prompts else _draw_prompt(draw)
        steps = None if shape.steps is None else draw.choice(shape.steps)
        yield Picture(shape, prompt, steps, draw.randint(0, MAX_SEED))
        index += 1


def _parse_shape(text: str) -> Shape:
    found = _SHAPE.fullmatch(text)
    if found is None or not text or text.startswith(":"):
        raise _wrong(text, "it is written WIDTHxHEIGHT@STEPS:WEIGHT, such as 256x256@4:9 or 512x512@8-16")
    width, height = (int(found[name]) if found[name] else None for name in ("width", "height"))
    if any(side is not None and not 1 <= side <= MAX_SIDE for side in (width, height)):
        raise _wrong(text, f"a side has 1 to {MAX_SIDE} pixels")
    weight = float(found["weight"] or 1)
    if not weight:
        raise _wrong(text, "a weight is above 0; leave out what is not to be asked")
    return Shape(text.partition(":")[0], width, height, _parse_steps(text, found["first"], found["last"]), weight)


def _parse_steps(text: str, first: str | None, last: str | None) -> range | None:
    if first is None:
        return None
    steps = range(int(first), int(last or first) + 1)
    if not steps or steps[0] < 1 or steps[-1] > MAX_STEPS:
        raise _wrong(text, f"steps are 1 to {MAX_STEPS}, the smaller number first")
    return steps


def _wrong(text: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(f"--mix: {text[:64]!r} is no kind of request: {remedy}", field="mix")


def _draw_prompt(draw: random.Random) -> str:
    parts = (draw.choice(each) for each in (_STYLES, _COLOURS, _THINGS, _PLACES, _COLOURS, _THINGS))
    return "{} of a {} {} {}, with a {} {}".format(*parts)
