"""What the flow is trained on at each step: pictures of one size, or parts of them, with captions drawn anew."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from training.sprite.data.captions import SILENCE, Said, caption, mistaken
from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import PATCH, Scene
from training.sprite.data.tokens import TEXT_LENGTH
from training.sprite.networks.devices import device
from training.sprite.networks.network import image_ids
from training.sprite.paths import work_folder
from training.sprite.stages.shards import Shard, available_shards, encoded_scenes, open_shard

WHOLE = (8, 8)  # the patches of a 256x256 picture
ALL = slice(None)
WHOLE_KINDS = 0.25  # of the batches of kinds: the others are the middle of a picture, which costs less


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Scenes that are trained on together, in those rows and columns of 256x256 that have all their things."""

    share: float  # of the batches of 256x256, and of the rows of other sizes; what is rare among scenes has its own
    text_length: int  # tokens of T5; what is cut off is still in CLIP's vector
    rows: slice
    columns: slice
    has_all_of: Callable[[Scene], bool]

    def part(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Of (rows, tokens, any)."""
        return tokens.unflatten(1, grid)[:, self.rows, self.columns].flatten(1, 2)


ALONE = View(0.16, 12, slice(2, 6), slice(2, 6), lambda scene: scene.relation == "one" and scene.first_size != "big")
EVERYTHING = View(0.19, TEXT_LENGTH, ALL, ALL, lambda _: True)
THING = replace(EVERYTHING, share=0, has_all_of=lambda scene: scene.relation == "one")
VIEWS = (
    View(0.08, 12, slice(4, 6), slice(3, 5), lambda scene: scene.relation == "one" and scene.first_size == "small"),
    ALONE,
    View(0.12, 12, slice(1, 7), slice(1, 7), lambda scene: scene.relation == "one" and scene.first_size == "big"),
    View(0.15, 20, slice(2, 6), ALL, lambda scene: scene.relation == "beside" or scene.count == 2),
    View(0.14, 20, ALL, slice(2, 6), lambda scene: scene.relation in ("above", "on")),
    View(0.16, 20, ALL, slice(1, 7), lambda scene: scene.relation == "riding"),
    EVERYTHING,
)


@dataclass(frozen=True, slots=True)
class Shares:
    other_sizes: float = 0.3  # of the batches; with a tenth, riding was a blur in them
    silence: float = 0.06  # of the rows
    mistaken: float = 0.06  # of the rows, whose caption may be of another picture; of more than half of them it is
    kinds: float = 0.45  # of the batches of 256x256, where rows are led on: things alone, by the names of their kinds


@dataclass(frozen=True, slots=True)
class Batch:
    scenes: list[Scene]
    said: list[Said]
    latents: Tensor  # (rows, tokens, 128)
    layouts: Tensor  # (rows, tokens, 4), as scenes.draw_with_layout has it
    weights: Tensor  # (rows,), of their errors
    grid: tuple[int, int]  # of the pictures, of which tokens are the part that is in view
    view: View
    twice: list[int] = field(default_factory=list)  # rows that the last ones repeat, with their negative prompts
    unseen: list[int] = field(default_factory=list)  # rows that show nothing yet, and have a layout all the same

    @property
    def texts(self) -> list[str]:
        return [words.text for words in self.said]

    @property
    def image_ids(self) -> Tensor:
        return self.view.part(image_ids(self.grid)[None], self.grid)[0]

    @property
    def backgrounds(self) -> Tensor:
        """(rows,), of places.BACKGROUNDS."""
        return torch.tensor([BACKGROUNDS.index(scene.background) for scene in self.scenes], device=device())

    @property
    def has_text(self) -> Tensor:
        return torch.tensor([text != "" for text in self.texts], device=device())

    @property
    def is_seen(self) -> Tensor:
        """(rows,), whether what each is to show can be told."""
        seen = self.has_text
        seen[self.unseen] = False
        return seen

    @property
    def is_open(self) -> Tensor:
        """(rows,), whether the caption names a kind of thing, or nothing."""
        return torch.tensor([words.is_open for words in self.said], device=device())

    @property
    def is_mistaken(self) -> Tensor:
        """(rows,), whether the caption is of another picture."""
        told = zip(self.said, self.scenes, strict=True)
        return torch.tensor([words.contradicts(scene) for words, scene in told], device=device())


def batch(size: int, shares: Shares, random: Random) -> Batch:
    """Rows of shards of one size: all their patches, or those of one view of 256x256."""
    shards = [open_shard(number) for number in available_shards()]
    others = [shard.grid for shard in shards if shard.grid != WHOLE]  # each as often as it has shards
    grid = random.choice(others) if others and random.random() < shares.other_sizes else WHOLE
    fitting = [shard for shard in shards if shard.grid == grid]
    if grid == WHOLE:
        names_kinds = random.random() < shares.kinds
        view = (THING if random.random() < WHOLE_KINDS else ALONE) if names_kinds else _random_view(random)
        rows = [_row(random.choice(fitting), view, random) for _ in range(size)]
    else:
        names_kinds, view = False, EVERYTHING
        rows = [_row(random.choice(fitting), _random_view(random), random) for _ in range(size)]
    scenes = [shard.scenes[index] for shard, index in rows]
    latents = view.part(_tensor(np.stack([shard.latents[index] for shard, index in rows])), grid)
    layouts = view.part(_tensor(np.stack([shard.layouts[index] for shard, index in rows])), grid)
    said = [_said(scene, shares, random, names_kinds) for scene in scenes]
    return Batch(scenes, said, latents, layouts, torch.ones(size, device=device()), grid, view)


def pictures(scenes: list[Scene], like: Batch) -> tuple[Tensor, Tensor]:
    """Latents and layouts of these scenes, of the size and view of that batch."""
    height, width = (PATCH * patches for patches in like.grid)
    latents, layouts = zip(*(_encoded(work_folder(), scene, width, height) for scene in scenes), strict=True)
    return like.view.part(_tensor(np.stack(latents)), like.grid), like.view.part(_tensor(np.stack(layouts)), like.grid)


@lru_cache(20_000)  # of 16 KB: favourites come again and again
def _encoded(_folder: Path, scene: Scene, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    latents, layouts = encoded_scenes([scene], width, height)
    return latents[0], layouts[0]


def _said(scene: Scene, shares: Shares, random: Random, names_kinds: bool) -> Said:
    if random.random() < shares.silence:
        return SILENCE
    said_of = mistaken(scene, random) if random.random() < shares.mistaken else scene
    return caption(said_of, random, kind_share=1.0 if names_kinds else None)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(device()).float()


def _random_view(random: Random) -> View:
    return random.choices(VIEWS, [view.share for view in VIEWS])[0]


def _row(shard: Shard, view: View, random: Random) -> tuple[Shard, int]:
    return shard, random.choice(_fitting(shard, view))


@cache
def _fitting(shard: Shard, view: View) -> tuple[int, ...]:
    return tuple(index for index, scene in enumerate(shard.scenes) if view.has_all_of(scene))
