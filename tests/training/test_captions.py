"""What captions leave open, and where in the noise the flow is asked for it."""

from dataclasses import replace
from random import Random

import pytest
import torch

from training.sprite.data.captions import SILENCE, caption, mistaken
from training.sprite.data.scenes import Scene, has_held_out_part, random_scene
from training.sprite.data.things import things
from training.sprite.networks.devices import device
from training.sprite.stages.flow import NEARLY_SHARE, sigmas
from training.sprite.stages.settling import EARLY

pytestmark = pytest.mark.usefixtures("work")


def test_a_caption_is_open_if_it_names_a_kind_or_nothing() -> None:
    random = Random(0)
    fox = next(thing for thing in things() if thing.name == "fox")
    said = [caption(Scene("one", "red", fox.index), random, plain=index % 2 == 0) for index in range(300)]

    assert SILENCE.is_open
    assert not any(words.is_open for words in said[::2])
    assert any(words.is_open for words in said)
    assert all(words.first > len(things()) for words in said if words.is_open)


def test_open_captions_are_a_quarter_as_often_asked_for_at_pure_noise_and_in_the_first_steps() -> None:
    torch.manual_seed(0)
    is_open = torch.arange(20_000, device=device()) % 2 == 0

    sigma = sigmas(is_open, first_step_share=0.6)

    for wanted, rows in ((0.6, ~is_open), (0.15, is_open)):
        # of the logit-normal's rows a quarter are early as well
        assert abs((sigma[rows] == 1).float().mean() - wanted * (1 - NEARLY_SHARE)) < 0.015
        assert abs((sigma[rows] > EARLY).float().mean() - wanted - (1 - wanted) * 0.246) < 0.015


def test_a_mistaken_scene_has_another_background_or_another_of_the_kind() -> None:
    random = Random(0)
    scenes = [random_scene(random) for _ in range(500)]
    others = [mistaken(scene, random) for scene in scenes]

    assert sum(other != scene for other, scene in zip(others, scenes, strict=True)) > 300
    assert not any(has_held_out_part(other) for other in others)
    for other, scene in zip(others, scenes, strict=True):
        has_another_thing, has_another_background = other.first != scene.first, other.background != scene.background
        assert not (has_another_thing and has_another_background)
        assert replace(other, first=scene.first, background=scene.background) == scene
        assert not has_another_thing or things()[other.first].category == things()[scene.first].category


def test_what_goes_unsaid_behind_several_things_is_white_and_behind_one_is_open() -> None:
    random = Random(0)
    scenes = [random_scene(random) for _ in range(4000)]
    unsaid = [scene for scene in scenes if caption(scene, random).background == 0]

    assert {scene.background for scene in unsaid if scene.relation not in ("one", "empty")} == {"white"}
    assert len({scene.background for scene in unsaid if scene.relation == "one"}) > 10
    assert sum(scene.relation != "one" for scene in unsaid) > 100


def test_a_mistaken_caption_of_several_things_says_so() -> None:
    random = Random(0)
    scenes = [scene for scene in (random_scene(random) for _ in range(4000)) if scene.relation not in ("one", "empty")]

    unsaid = [scene for scene in scenes if caption(mistaken(scene, random), random).background == 0]

    assert len(unsaid) > 100
    assert {scene.background for scene in unsaid} == {"white"}
