"""Pictures encoded beforehand: shards of packed latents on disk, so that the flow never waits for a drawing.

A shard is drawn from its number alone, so its scenes need not be stored: they are drawn up again for captions.
"""

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from training.sprite.data.scenes import Scene, draw, draw_with_layout, random_scene
from training.sprite.networks.autoencoder import load_autoencoder, to_tensor
from training.sprite.networks.checkpoints import log
from training.sprite.networks.devices import mixed_precision
from training.sprite.paths import work_folder

SHARD_SCENES = 1024
# Most shards are 256x256. Every third has one of the other sizes, so that they are drawn sensibly too; the smallest,
# whose things are the last to be learnt, come twice.
OTHER_SIZES = (
    (192, 192), (320, 320), (128, 128), (384, 256), (256, 384),
    (192, 192), (128, 128), (320, 192), (192, 320), (384, 384),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    width: int
    height: int
    scenes: tuple[Scene, ...]
    latents: np.ndarray
    layouts: np.ndarray  # (scenes, tokens, 4), as scenes.draw_with_layout has it

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // 32, self.width // 32


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The autoencoder config's scaling_factor and shift_factor, which make latents of mean 0 and deviation 1."""

    scale: float
    shift: float


def shard_size(number: int) -> tuple[int, int]:
    if number % 3 != 2:
        return 256, 256
    return OTHER_SIZES[number // 3 % len(OTHER_SIZES)]


def shard_scenes(number: int, count: int = SHARD_SCENES) -> tuple[Scene, ...]:
    random = Random(f"shard {number}")
    return tuple(random_scene(random) for _ in range(count))


def encoded_scenes(scenes: list[Scene], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as of a shard: latents (scenes, tokens, 128) and layouts (scenes, tokens, 4)."""
    pixels, layouts = zip(*(draw_with_layout(scene, width, height) for scene in scenes), strict=True)
    norm = normalisation()
    latents = (encoded(_autoencoder(work_folder()), to_tensor(list(pixels))) - norm.shift) * norm.scale
    return pack(latents).to(torch.float16).numpy(), np.stack([layout.reshape(-1, 4) for layout in layouts])


def encode_shards(numbers: range) -> None:
    """Draws and encodes those of the numbered shards that are not there yet."""
    for number in numbers:
        if not _shard_path(number).exists():
            _encode_shard(number)


def available_shards() -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in _folder().glob("shard-*.npy"))


def open_shard(number: int) -> Shard:
    return _open_shard(work_folder(), number)


@cache
def _open_shard(_folder: Path, number: int) -> Shard:
    latents = np.load(_shard_path(number), mmap_mode="r")
    scenes = shard_scenes(number)[: len(latents)]
    return Shard(*shard_size(number), scenes, latents, np.load(_layout_path(number)))


def is_normalised() -> bool:
    return _normalisation_path().exists()


def normalisation() -> Normalisation:
    scale, shift = np.load(_normalisation_path())
    return Normalisation(float(scale), float(shift))


def save_normalisation(norm: Normalisation) -> None:
    np.save(_normalisation_path(), np.array([norm.scale, norm.shift]))


def measure_normalisation(count: int = 256) -> None:
    """Once; the flow is bound to it from then on."""
    if not is_normalised():
        random = Random("normalisation")
        pictures = [draw(random_scene(random), 256, 256) for _ in range(count)]
        latents = torch.cat([encoded(load_autoencoder(), to_tensor(pictures[i : i + 16])) for i in range(0, count, 16)])
        save_normalisation(Normalisation(1 / latents.std().item(), latents.mean().item()))


def pack(latents: Tensor) -> Tensor:
    """(batch, 32, h, w) to the transformer's (batch, h/2 * w/2, 128), as FluxPipeline packs them."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, channels * 4)


def _encode_shard(number: int) -> None:
    width, height = shard_size(number)
    scenes = list(shard_scenes(number, SHARD_SCENES))
    portions = [encoded_scenes(scenes[start : start + 16], width, height) for start in range(0, len(scenes), 16)]
    latents, layouts = zip(*portions, strict=True)
    np.save(_layout_path(number), np.concatenate(layouts))
    _save(number, np.concatenate(latents))
    log("shards", number=number, width=width, height=height)


@cache
def _autoencoder(_folder: Path) -> AutoencoderTiny:
    return load_autoencoder()


@torch.no_grad()
def encoded(autoencoder: AutoencoderTiny, pictures: Tensor) -> Tensor:
    with mixed_precision():
        latents: Tensor = autoencoder.encoder(pictures.contiguous(memory_format=torch.channels_last))
    return latents.float().cpu()


def _save(number: int, latents: np.ndarray) -> None:
    part = _folder() / "part.npy"
    np.save(part, latents)
    part.rename(_shard_path(number))


def _shard_path(number: int) -> Path:
    return _folder() / f"shard-{number:04}.npy"


def _layout_path(number: int) -> Path:
    return _folder() / f"layout-{number:04}.npy"


def _normalisation_path() -> Path:
    return _folder() / "normalisation.npy"


def _folder() -> Path:
    folder = work_folder() / "shards"
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="of the shards to have")
    measure_normalisation()
    encode_shards(range(parser.parse_args().count))
