"""What captions leave open, and where in the noise the flow is asked for it."""

from random import Random

import torch

from training.sprite.captions import SILENCE, caption
from training.sprite.flow import sigmas
from training.sprite.scenes import Scene
from training.sprite.things import things


def test_a_caption_is_open_if_it_names_a_kind_or_nothing() -> None:
    random = Random(0)
    fox = next(thing for thing in things() if thing.name == "fox")
    said = [caption(Scene("one", "red", fox.index), random, plain=index % 2 == 0) for index in range(300)]

    assert SILENCE.is_open
    assert not any(words.is_open for words in said[::2])
    assert any(words.is_open for words in said)
    assert all(words.first > len(things()) for words in said if words.is_open)


def test_open_captions_are_half_as_often_asked_for_at_pure_noise() -> None:
    torch.manual_seed(0)
    is_open = torch.arange(20_000) % 2 == 0

    at_pure_noise = sigmas(is_open, first_step_share=0.6) == 1

    assert abs(at_pure_noise[~is_open].float().mean() - 0.6) < 0.02
    assert abs(at_pure_noise[is_open].float().mean() - 0.3) < 0.02
