"""Half of the threads make the pixels of all of them, or they are not taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from safelight.engine.pixels.decoder import Decoder
from safelight.engine.threads import Threads

pytestmark = pytest.mark.usefixtures("four_threads")
LATENTS = torch.zeros(1, 4, 2, 2)


class Config(dict[str, float]):
    scaling_factor = 1.0


class Autoencoder:
    """Paints every pixel with what `paint` makes of the number of threads."""

    dtype = torch.float32
    config = Config()

    def __init__(self, paint: Callable[[int], float]) -> None:
        self._paint = paint
        self.threads: list[int] = []

    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        self.threads.append(torch.get_num_threads())
        return (torch.full((len(latents), 3, 4, 4), self._paint(torch.get_num_threads())),)


def test_a_picture_beside_others_leaves_them_half_of_the_threads_once_it_was_seen_to_be_the_same() -> None:
    autoencoder = Autoencoder(lambda threads: 0.5)
    decoder = Decoder(autoencoder, Threads())

    for is_alone in (True, False, False, True):
        decoder(LATENTS, is_alone=is_alone)

    assert autoencoder.threads == [4, 4, 2, 2, 4]
    assert torch.get_num_threads() == 4


def test_a_machine_whose_pixels_depend_on_the_threads_decodes_with_all_of_them() -> None:
    decoder = Decoder(Autoencoder(lambda threads: threads / 10), Threads())

    images = [decoder(LATENTS, is_alone=is_alone) for is_alone in (True, False, False, False)]

    assert all(torch.equal(image, images[0]) for image in images)
