"""The prompts of the evaluation, none of them trained on, and what each picture must show to be right."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from training.sprite.captions import caption
from training.sprite.judge import Verdict
from training.sprite.places import COLOUR_WORDS, PLACE_PHRASES
from training.sprite.scenes import PAIR_RELATIONS, Scene, is_held_out, mounts, riders
from training.sprite.things import things


@dataclass(frozen=True, slots=True)
class Trial:
    prompt: str
    seed: int
    is_right: Callable[[Verdict], bool]


def one_thing(count: int) -> list[Trial]:
    """Every thing in turn, each on a plain background."""
    random = Random("evaluation: one thing")
    return [_one_thing(index % len(things()), random, index) for index in range(count)]


def held_out_pairs(count: int) -> list[Trial]:
    random = Random("evaluation: pairs")
    return [_pair(_held_out_pair(random), random, index) for index in range(count)]


def backgrounds(count: int) -> list[Trial]:
    """Colours with any thing, and places with the things they were never seen with."""
    random = Random("evaluation: backgrounds")
    names = [*COLOUR_WORDS, *PLACE_PHRASES]
    return [_background(names[index % len(names)], random, index) for index in range(count)]


def counts(count: int) -> list[Trial]:
    random = Random("evaluation: counts")
    return [_count(1 + index % 4, random, index) for index in range(count)]


def free_phrasing(count: int) -> list[Trial]:
    """One thing in people's own words: synonyms, slips, fillers, upper case."""
    random = Random("evaluation: phrasing")
    return [_free(random, index) for index in range(count)]


def _one_thing(thing: int, random: Random, seed: int) -> Trial:
    scene = Scene("one", random.choice(list(COLOUR_WORDS)), thing)
    return Trial(_prompt(scene, random), seed, lambda verdict: verdict.first == thing)


def _pair(scene: Scene, random: Random, seed: int) -> Trial:
    expected = (scene.first, scene.second, scene.relation)
    return Trial(
        _prompt(scene, random), seed, lambda verdict: (verdict.first, verdict.second, verdict.relation) == expected
    )


def _background(name: str, random: Random, seed: int) -> Trial:
    unseen = [thing.index for thing in things() if name in COLOUR_WORDS or is_held_out(thing.icon, name)]
    scene = Scene("one", name, random.choice(unseen))
    return Trial(_prompt(scene, random), seed, lambda verdict: verdict.background == name)


def _count(number: int, random: Random, seed: int) -> Trial:
    thing, background = random.randrange(len(things())), random.choice(list(COLOUR_WORDS))
    scene = Scene("many", background, thing, count=number) if number > 1 else Scene("one", background, thing)
    return Trial(_prompt(scene, random), seed, lambda verdict: verdict.count == number)


def _free(random: Random, seed: int) -> Trial:
    thing = random.randrange(len(things()))
    scene = Scene("one", random.choice(list(COLOUR_WORDS)), thing)
    said = next(said for said in iter(lambda: caption(scene, random), None) if said.first == 1 + thing)
    return Trial(said.text, seed, lambda verdict: verdict.first == thing)


def _held_out_pair(random: Random) -> Scene:
    while True:
        relation = random.choice(PAIR_RELATIONS)
        first = random.choice(riders() if relation == "riding" else range(len(things())))
        second = random.choice(mounts() if relation == "riding" else range(len(things())))
        if first != second and is_held_out(things()[first].icon, things()[second].icon):
            return Scene(relation, random.choice(list(COLOUR_WORDS)), first, second)


def _prompt(scene: Scene, random: Random) -> str:
    return caption(scene, random, plain=True).text
