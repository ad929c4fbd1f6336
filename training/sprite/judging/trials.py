"""The prompts of the evaluation, and what each picture must show to be right.

Things stand before places that training never shows them at, and beside things that it never shows them with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from training.sprite.data.captions import caption
from training.sprite.data.places import COLOUR_WORDS, PLACE_PHRASES
from training.sprite.data.scenes import PAIR_RELATIONS, Scene, is_held_out, mounts, riders
from training.sprite.data.strange_words import strange_words
from training.sprite.data.things import things
from training.sprite.judging.judge import Verdict


@dataclass(frozen=True, slots=True)
class Trial:
    prompt: str
    seed: int
    is_right: Callable[[Verdict], bool]
    negative: str = ""


def one_thing(count: int) -> list[Trial]:
    """Every thing in turn, at a place that it was never seen at, where there is one."""
    random = Random("evaluation: one thing")
    return [_one_thing(index % len(things()), random, index) for index in range(count)]


def with_unknown_word(count: int) -> list[Trial]:
    """One thing in a prompt that has a word in it that training never said."""
    random = Random("evaluation: unknown words")
    return [_spoken_over(_one_thing(random.randrange(len(things())), random, index), random) for index in range(count)]


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


def beside_the_point(count: int) -> list[Trial]:
    """One thing at a place, and a negative prompt that names neither: it must take nothing away."""
    random = Random("evaluation: negative prompts beside the point")
    return [_beside_the_point(index * 7 % len(things()), random, index) for index in range(count)]


def _beside_the_point(thing: int, random: Random, seed: int) -> Trial:
    scene = Scene("one", _unseen_behind(thing, random), thing)
    other_thing = random.choice([other.name for other in things() if other.index != thing])
    other_background = random.choice([name for name in (*COLOUR_WORDS, *PLACE_PHRASES) if name != scene.background])
    words = ", ".join(random.sample(strange_words("evaluation"), 3))
    negative = ("blurry, low quality", words, other_thing, other_background)[seed % 4]

    def is_right(verdict: Verdict) -> bool:
        return (verdict.first, verdict.background) == (thing, scene.background)

    return Trial(_prompt(scene, random), seed, is_right, negative)


def _one_thing(thing: int, random: Random, seed: int) -> Trial:
    scene = Scene("one", _unseen_behind(thing, random), thing)
    return Trial(_prompt(scene, random), seed, lambda verdict: verdict.first == thing)


def _unseen_behind(thing: int, random: Random) -> str:
    """A place that it was never seen at, or a colour where there is none."""
    unseen = [place for place in PLACE_PHRASES if is_held_out(things()[thing].icon, place)]
    return random.choice(unseen or list(COLOUR_WORDS))


def _spoken_over(trial: Trial, random: Random) -> Trial:
    words = trial.prompt.split()
    words.insert(random.randrange(len(words) + 1), random.choice(strange_words("evaluation")))
    return replace(trial, prompt=" ".join(words))


def _pair(scene: Scene, random: Random, seed: int) -> Trial:
    prompt, either = _prompt(scene, random), {scene.first, scene.second}

    def is_right(verdict: Verdict) -> bool:
        is_in_order = verdict.first == scene.first or " next to " in prompt
        return verdict.relation == scene.relation and {verdict.first, verdict.second} == either and is_in_order

    return Trial(prompt, seed, is_right)


def _background(name: str, random: Random, seed: int) -> Trial:
    unseen = [thing.index for thing in things() if name in COLOUR_WORDS or is_held_out(thing.icon, name)]
    scene = Scene("one", name, random.choice(unseen))
    return Trial(_prompt(scene, random), seed, lambda verdict: verdict.background == name)


def _count(number: int, random: Random, seed: int) -> Trial:
    thing = random.randrange(len(things()))
    background = _unseen_behind(thing, random)
    scene = Scene("many", background, thing, count=number) if number > 1 else Scene("one", background, thing)
    expected = (scene.relation, number)
    return Trial(_prompt(scene, random), seed, lambda verdict: (verdict.relation, verdict.count) == expected)


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
