"""What a picture shows, as a record, and the drawing of it: a background and up to four icons."""

import hashlib
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.sprite.artwork import Pixels, background_at, icon_at
from training.sprite.places import BACKGROUNDS, PLACE_PHRASES
from training.sprite.things import things

Relation = Literal["empty", "one", "many", "beside", "above", "on", "riding"]
Size = Literal["small", "normal", "big"]
PAIR_RELATIONS: tuple[Relation, ...] = ("beside", "above", "on", "riding")
SIZES: tuple[Size, ...] = ("small", "normal", "big")
HELD_OUT_SHARE = 0.2
JITTER = 0.016  # of the shorter side, 4 pixels of 256: what is nearly certain from the caption is learnt in few samples
PATCH = 32
PATCH_SHARE = 0.12  # of a patch that a thing must cover to be what the patch shows


@dataclass(frozen=True, slots=True)
class Scene:
    """`first` is left of, above, on top of, or riding `second`; `many` shows `count` of `first`."""

    relation: Relation
    background: str
    first: int = -1
    second: int = -1
    first_size: Size = "normal"
    second_size: Size = "normal"
    count: int = 1


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an icon goes: its middle and its longer side, in units of the shorter side of the picture."""

    thing: int
    x: float
    y: float
    side: float


def is_held_out(first: str, second: str) -> bool:
    """Whether this pair of a thing with a thing, or with a place, is kept from training."""
    digest = hashlib.sha256("|".join(sorted((first, second))).encode()).digest()
    return digest[0] < 256 * HELD_OUT_SHARE


def has_held_out_part(scene: Scene) -> bool:
    names = [things()[index].icon for index in (scene.first, scene.second) if index >= 0]
    if len(names) == 2 and is_held_out(*names):
        return True
    return scene.background in PLACE_PHRASES and any(is_held_out(name, scene.background) for name in names)


def random_scene(random: Random, pair_share: float = 0.5) -> Scene:
    """A scene that training may see."""
    while True:
        scene = _any_scene(random, pair_share)
        if not has_held_out_part(scene):
            return scene


def draw(scene: Scene, width: int, height: int, random: Random) -> Pixels:
    return draw_with_layout(scene, width, height, random)[0]


def draw_with_layout(scene: Scene, width: int, height: int, random: Random) -> tuple[Pixels, NDArray[np.float16]]:
    """The picture and, for each of its 32x32 patches, which thing it shows and which part of that thing.

    The layout is (height / 32, width / 32, 4): 0 or 1 + the thing, how far the patch is right of and below the
    thing's middle in units of the thing's side, and that side in units of the picture's shorter side.
    """
    canvas = background_at(scene.background, width, height).copy()
    spots = _spots(scene, random)
    owners = np.full((height, width), -1, np.int8)
    for number, spot in enumerate(spots):
        _paste(canvas, owners, number, spot)
    return canvas, _layout(owners, spots)


def _any_scene(random: Random, pair_share: float) -> Scene:
    if random.random() < pair_share:
        return _pair_scene(random)
    kind = random.random()
    background = random_background(random)
    if kind < 0.03:
        return Scene("empty", background)
    first = random.randrange(len(things()))
    if kind < 0.25:
        return Scene("many", background, first, count=random.randint(2, 4))
    return Scene("one", background, first, first_size=random_size(random))


def random_background(random: Random) -> str:
    return "white" if random.random() < 0.15 else random.choice(BACKGROUNDS)


def random_size(random: Random) -> Size:
    return random.choices(SIZES, (1, 3, 1))[0]


def _pair_scene(random: Random) -> Scene:
    relation = random.choices(PAIR_RELATIONS, (5, 2, 2, 2))[0]
    background = random_background(random)
    if relation == "riding":
        return Scene(relation, background, random.choice(riders()), random.choice(mounts()))
    first, second = random.sample(range(len(things())), 2)
    if relation == "beside" and random.random() < 0.4:
        return Scene(relation, background, first, second, random_size(random), random_size(random))
    return Scene(relation, background, first, second)


@cache
def riders() -> tuple[int, ...]:
    return tuple(thing.index for thing in things() if thing.is_rider)


@cache
def mounts() -> tuple[int, ...]:
    return tuple(thing.index for thing in things() if thing.is_mount)


def _spots(scene: Scene, random: Random) -> list[Spot]:
    x, y = random.uniform(-JITTER, JITTER), random.uniform(-JITTER, JITTER)
    grow = random.uniform(1 - JITTER, 1 + JITTER)
    return [Spot(spot.thing, spot.x + x, spot.y + y, spot.side * grow) for spot in _places(scene)]


def _places(scene: Scene) -> list[Spot]:
    first, second = scene.first, scene.second
    match scene.relation:
        case "empty":
            return []
        case "one":
            side, y = {"small": (0.28, 0.62), "normal": (0.52, 0.55), "big": (0.80, 0.52)}[scene.first_size]
            return [Spot(first, 0.5, y, side)]
        case "many":
            return [Spot(first, *spot) for spot in _COUNT_SPOTS[scene.count]]
        case "beside":
            left, right = _BESIDE_SIDES[scene.first_size], _BESIDE_SIDES[scene.second_size]
            return [Spot(first, 0.27, 0.76 - left / 2, left), Spot(second, 0.73, 0.76 - right / 2, right)]
        case "above":
            return [Spot(first, 0.5, 0.24, 0.36), Spot(second, 0.5, 0.75, 0.36)]
        case "on":
            return _stacked(first, second, 0.36, 0.44, overlap=0.03, bottom=0.90)
        case "riding":
            return list(_stacked(second, first, 0.40, 0.60, overlap=0.17, bottom=0.90, below_first=True))


_BESIDE_SIDES: dict[Size, float] = {"small": 0.25, "normal": 0.41, "big": 0.48}
_COUNT_SPOTS: dict[int, tuple[tuple[float, float, float], ...]] = {
    2: ((0.28, 0.56, 0.38), (0.72, 0.56, 0.38)),
    3: ((0.5, 0.30, 0.36), (0.28, 0.72, 0.36), (0.72, 0.72, 0.36)),
    4: ((0.28, 0.29, 0.36), (0.72, 0.29, 0.36), (0.28, 0.72, 0.36), (0.72, 0.72, 0.36)),
}


def _stacked(
    first: int, second: int, top: float, low: float, *, overlap: float, bottom: float, below_first: bool = False
) -> list[Spot]:
    """Two things one upon the other, touching; with `below_first` the lower one is drawn first, behind."""
    upper, lower = (second, first) if below_first else (first, second)
    low_height, top_height = low * _tallness(lower), top * _tallness(upper)
    seat = bottom - low_height
    spots = [Spot(lower, 0.5, bottom - low_height / 2, low), Spot(upper, 0.5, seat - top_height / 2 + overlap, top)]
    return spots if below_first else spots[::-1]


def _tallness(index: int) -> float:
    height, width = icon_at(index, 128).shape[:2]
    return height / max(width, height)


def _layout(owners: NDArray[np.int8], spots: list[Spot]) -> NDArray[np.float16]:
    height, width = owners.shape
    rows, columns = height // PATCH, width // PATCH
    unit = min(width, height)
    layout = np.zeros((rows, columns, 4), np.float16)
    most = np.full((rows, columns), PATCH_SHARE)
    y = ((np.arange(rows) + 0.5) * PATCH - height / 2) / unit + 0.5
    x = ((np.arange(columns) + 0.5) * PATCH - width / 2) / unit + 0.5
    for number, spot in enumerate(spots):
        share = (owners == number).reshape(rows, PATCH, columns, PATCH).mean((1, 3))
        right, down = np.meshgrid((x - spot.x) / spot.side, (y - spot.y) / spot.side)
        part = np.stack([np.full_like(share, 1 + spot.thing), right, down, np.full_like(share, spot.side)], -1)
        layout = np.where((share > most)[..., None], part, layout).astype(np.float16)
        most = np.maximum(most, share)
    return layout


def _paste(canvas: Pixels, owners: NDArray[np.int8], number: int, spot: Spot) -> None:
    height, width = canvas.shape[:2]
    unit = min(width, height)
    icon = icon_at(spot.thing, max(8, round(spot.side * unit / 2) * 2))
    left = round(width / 2 + (spot.x - 0.5) * unit - icon.shape[1] / 2)
    top = round(height / 2 + (spot.y - 0.5) * unit - icon.shape[0] / 2)
    x, y = max(left, 0), max(top, 0)
    part = icon[y - top : height - top, x - left : width - left]
    under = canvas[y : y + part.shape[0], x : x + part.shape[1]]
    veil = 255 - part[..., 3:].astype(np.uint16)
    np.minimum(part[..., :3] + (under * veil + 127) // 255, 255, out=under, casting="unsafe")
    owners[y : y + part.shape[0], x : x + part.shape[1]][part[..., 3] > 127] = number
