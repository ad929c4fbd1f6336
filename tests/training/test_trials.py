"""What the evaluation of sprite takes for right."""

import pytest

pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")

from training.sprite.data.places import BACKGROUNDS
from training.sprite.data.scenes import is_held_out
from training.sprite.data.things import things
from training.sprite.judging.judge import Verdict
from training.sprite.judging.trials import beside_the_point, counts, held_out_pairs, one_thing

pytestmark = pytest.mark.usefixtures("work")


def verdict(first: int = -1, second: int = -1, relation: str = "empty", count: int = 1) -> Verdict:
    return Verdict(first, second, relation, "white", count)


def named(prompt: str, before: str) -> int:
    """The thing named in the part of a prompt that comes before some words."""
    name = prompt.split(before, maxsplit=1)[0].removeprefix("an ").removeprefix("a ")
    return next(thing.index for thing in things() if thing.name == name)


def named_after(prompt: str, words: str) -> int:
    return named(prompt.split(words)[1], " on a")


@pytest.mark.parametrize(("words", "first_is_left"), [(" left of ", True), (" right of ", False)])
def test_left_and_right_are_asked_for_and_told_apart(words: str, first_is_left: bool) -> None:
    trial = next(trial for trial in held_out_pairs(100) if words in trial.prompt)
    said, other = named(trial.prompt, words), named_after(trial.prompt, words)
    left, right = (said, other) if first_is_left else (other, said)

    assert trial.is_right(verdict(left, right, "beside", 1))
    assert not trial.is_right(verdict(right, left, "beside", 1))
    assert not trial.is_right(verdict(left, right, "above", 1))


def test_next_to_is_right_either_way_round() -> None:
    trial = next(trial for trial in held_out_pairs(100) if " next to " in trial.prompt)
    a, b = named(trial.prompt, " next to "), named_after(trial.prompt, " next to ")

    assert trial.is_right(verdict(a, b, "beside"))
    assert trial.is_right(verdict(b, a, "beside"))
    assert not trial.is_right(verdict(a, a, "beside"))


def test_an_empty_picture_does_not_count_as_one_thing() -> None:
    trial = counts(1)[0]

    assert trial.is_right(verdict(3, relation="one"))
    assert not trial.is_right(verdict(relation="empty"))


def test_a_negative_prompt_beside_the_point_names_nothing_that_is_asked_for() -> None:
    trials = beside_the_point(len(things()))

    assert all(trial.negative and trial.negative not in trial.prompt for trial in trials)
    assert {"blurry, low quality"} < {trial.negative for trial in trials}


def test_with_a_negative_prompt_beside_the_point_both_the_thing_and_its_place_must_stay() -> None:
    trial = beside_the_point(1)[0]
    right = [
        (thing.index, background)
        for thing in things()
        for background in BACKGROUNDS
        if trial.is_right(Verdict(thing.index, -1, "one", background, 1))
    ]

    assert len(right) == 1
    assert things()[right[0][0]].name in trial.prompt


def test_things_are_asked_for_at_places_that_were_held_out() -> None:
    prompts = [trial.prompt for trial in one_thing(len(things()))]
    places = {"in the snow": "snow", "in the desert": "desert", "on the moon": "moon", "at night": "night"}
    asked = [
        (thing.icon, place)
        for thing, prompt in zip(things(), prompts, strict=True)
        for words, place in places.items()
        if prompt.endswith(words)
    ]

    assert asked
    assert all(is_held_out(*pair) for pair in asked)
