"""What a picture shows, as a record, and the drawing of it: a background and up to four icons."""

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.sprite.data.artwork import Pixels, background_at, icon_at
from training.sprite.data.places import BACKGROUNDS, PLACE_PHRASES
from training.sprite.data.things import things

Relation = Literal["empty", "one", "many", "beside", "above", "on", "riding"]
Size = Literal["small", "normal", "big"]
PAIR_RELATIONS: tuple[Relation, ...] = ("beside", "above", "on", "riding")
PAIR_SIZES: tuple[tuple[Size, Size], ...] = (
    ("small", "normal"), ("normal", "small"), ("small", "big"), ("big", "small"),
)  # fmt: skip
SIZES: tuple[Size, ...] = ("small", "normal", "big")
HELD_OUT_SHARE = 0.2
PATCH = 32  # pixels a side: what one token of the transformer shows
DEPTH = 0.1  # of a mount's height that its rider sits in it, at least
FILLED = 0.92  # of the side of its square that a thing takes
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
    """Where an icon goes, in patches: the middle of its square, the square's lower edge and its side.

    The icon's longer side is FILLED of the square's; it stands on the lower edge, as far from it as from the sides.
    """

    thing: int
    x: float
    bottom: float
    side: int


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


def held_out_scene(random: Random) -> Scene:
    """A scene that training may not see."""
    while True:
        scene = _any_scene(random, 0.5)
        if has_held_out_part(scene):
            return scene


def draw(scene: Scene, width: int, height: int) -> Pixels:
    return draw_with_layout(scene, width, height)[0]


def draw_with_layout(scene: Scene, width: int, height: int) -> tuple[Pixels, NDArray[np.float16]]:
    """The picture and, for each of its 32x32 patches, which thing it shows and which part of that thing.

    The layout is (height / 32, width / 32, 4): 0 or 1 + the thing, how far the patch is right of and below the
    middle of the thing's square, and that square's side, in patches and divided by 4.
    """
    canvas = background_at(scene.background, width, height).copy()
    spots = _spots(scene, (height // PATCH, width // PATCH))
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
    if relation == "beside" and random.random() < 0.3:
        return Scene(relation, background, first, second, *random.choice(PAIR_SIZES))
    return Scene(relation, background, first, second)


@cache
def riders() -> tuple[int, ...]:
    return tuple(thing.index for thing in things() if thing.is_rider)


@cache
def mounts() -> tuple[int, ...]:
    return tuple(thing.index for thing in things() if thing.is_mount)


def _spots(scene: Scene, grid: tuple[int, int]) -> list[Spot]:
    """Where each icon stands, the one behind first. Things stand on patches, in one of three sizes: see README."""
    rows, columns = grid
    sizes = _sizes(min(grid))
    pair = sizes.pair
    left, middle, right = columns / 2 - pair / 2, columns / 2, columns / 2 + pair / 2
    standing, upper, lower = (rows + pair) // 2, rows // 2, rows // 2 + pair
    first, second = scene.first, scene.second
    match scene.relation:
        case "empty":
            return []
        case "one":
            side = sizes.of(scene.first_size)
            return [Spot(first, middle, (rows + max(side, pair)) // 2, side)]
        case "many":
            ground = standing if scene.count == 2 else lower
            beside = [Spot(first, left, ground, pair), Spot(first, right, ground, pair)]
            top = {2: (), 3: (middle,), 4: (left, right)}[scene.count]
            return [Spot(first, x, upper, pair) for x in top] + beside
        case "beside":
            small = sizes.small
            sides = [small if size == "small" else pair for size in (scene.first_size, scene.second_size)]
            return [Spot(first, left, standing, sides[0]), Spot(second, right, standing, sides[1])]
        case "above":
            return [Spot(first, middle, upper, pair), Spot(second, middle, lower, pair)]
        case "on":
            below = Spot(second, middle, lower, pair)
            return [Spot(first, middle, _seat(below, 0.0), pair), below]
        case "riding":
            mount = Spot(second, middle, lower, sizes.mount)
            return [mount, Spot(first, middle, max(pair, _seat(mount, DEPTH)), pair)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sides of things, in patches, on a canvas of some size; `pair` is that of what is not alone."""

    small: int
    normal: int
    big: int
    pair: int
    mount: int

    def of(self, size: Size) -> int:
        return {"small": self.small, "normal": self.normal, "big": self.big}[size]


def _sizes(patches: int) -> Sizes:
    if patches < 6:
        return Sizes(small=2, normal=2, big=4, pair=2, mount=2)
    if patches < 8:
        return Sizes(small=2, normal=4, big=6, pair=2, mount=4)
    return Sizes(small=2, normal=4, big=6, pair=4, mount=6)


def _seat(below: Spot, depth: float) -> int:
    """The patch at or under the top of a thing, deeper in it by a share of its height."""
    height = below.side * FILLED * _tallness(below.thing)
    return math.ceil(below.bottom - height * (1 - depth) - below.side * (1 - FILLED) / 2)


def _tallness(index: int) -> float:
    height, width = icon_at(index, 128).shape[:2]
    return height / max(width, height)


def _layout(owners: NDArray[np.int8], spots: list[Spot]) -> NDArray[np.float16]:
    rows, columns = owners.shape[0] // PATCH, owners.shape[1] // PATCH
    layout = np.zeros((rows, columns, 4), np.float16)
    most = np.full((rows, columns), PATCH_SHARE)
    for number, spot in enumerate(spots):
        share = (owners == number).reshape(rows, PATCH, columns, PATCH).mean((1, 3))
        right, down = np.meshgrid(
            np.arange(columns) + 0.5 - spot.x, np.arange(rows) + 0.5 - spot.bottom + spot.side / 2
        )
        part = (
            np.stack([np.full_like(share, 4 * (1 + spot.thing)), right, down, np.full_like(share, spot.side)], -1) / 4
        )
        layout = np.where((share > most)[..., None], part, layout).astype(np.float16)
        most = np.maximum(most, share)
    return layout


def _paste(canvas: Pixels, owners: NDArray[np.int8], number: int, spot: Spot) -> None:
    side = round(spot.side * PATCH * FILLED / 2) * 2
    icon = icon_at(spot.thing, side)
    left = round(spot.x * PATCH - icon.shape[1] / 2)
    top = round(spot.bottom * PATCH) - (spot.side * PATCH - side) // 2 - icon.shape[0]
    height, width = canvas.shape[:2]
    x, y = max(left, 0), max(top, 0)
    part = icon[y - top : height - top, x - left : width - left]
    under = canvas[y : y + part.shape[0], x : x + part.shape[1]]
    veil = 255 - part[..., 3:].astype(np.uint16)
    np.minimum(part[..., :3] + (under * veil + 127) // 255, 255, out=under, casting="unsafe")
    owners[y : y + part.shape[0], x : x + part.shape[1]][part[..., 3] > 127] = number
