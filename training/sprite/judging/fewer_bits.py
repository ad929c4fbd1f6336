"""Whether sprite draws the same things with weights in fewer bits: a quicker look than the evaluation, without a judge.

`python -m training.sprite.judging.fewer_bits` draws scenes that training never showed, in 4 steps and with the same
seeds in each precision. The recipe can render what was asked for, and what might have been drawn in its place; a
picture is right if, of all these, it is nearest to what was asked for. That is an easier question than the judge's:
what counts is the difference between precisions. dB are PSNR, at 64x64 pixels for renders.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from random import Random
from typing import get_args

import numpy as np

from safelight.settings import Quantization
from training.sprite.data import artwork
from training.sprite.data.artwork import Pixels
from training.sprite.data.captions import caption
from training.sprite.data.places import BACKGROUNDS, COLOUR_WORDS, PLACE_PHRASES
from training.sprite.data.scenes import PAIR_RELATIONS, Scene, draw, is_held_out, mounts, riders
from training.sprite.data.things import things
from training.sprite.judging.evaluate import draw_prompts, load_pipeline

SIDE = 64
STEPS = 4
DECOYS = 40
"""Other things in the place of each of a pair."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, what its picture is to show, and what it might show instead, by what is measured so."""

    prompt: str
    seed: int
    scene: Scene
    others: Mapping[str, Sequence[Scene]]


def asked(count: int) -> list[Asked]:
    """So many of one thing, half as many pairs, and a quarter as many counts."""
    return [*_one_thing(count), *_pairs(count // 2), *_counts(count // 4)]


def _one_thing(count: int) -> Iterator[Asked]:
    """At places that training never showed it at; each picture is asked about the thing, and about the place."""
    random = Random("fewer bits: one thing")
    for seed in range(count):
        thing = seed * 7 % len(things())
        places = [place for place in PLACE_PHRASES if is_held_out(things()[thing].icon, place)]
        scene = Scene("one", random.choice(places or list(COLOUR_WORDS)), thing)
        others = [replace(scene, first=other.index) for other in things() if other.index != thing]
        elsewhere = [replace(scene, background=name) for name in BACKGROUNDS if name != scene.background]
        yield _asked(scene, seed, {"one thing": others, "background": elsewhere}, random)


def _pairs(count: int) -> Iterator[Asked]:
    random = Random("fewer bits: pairs")
    for seed in range(count):
        relation = PAIR_RELATIONS[seed % len(PAIR_RELATIONS)]
        pairs = (
            (random.choice(riders()), random.choice(mounts()))
            if relation == "riding"
            else (random.randrange(len(things())), random.randrange(len(things())))
            for _ in iter(int, 1)
        )
        first, second = next(pair for pair in pairs if is_held_out(*(things()[index].icon for index in pair)))
        scene = Scene(relation, random.choice(list(COLOUR_WORDS)), first, second)
        other = [index for index in random.sample(range(len(things())), DECOYS) if index not in (first, second)]
        others = [replace(scene, first=index) for index in other] + [replace(scene, second=index) for index in other]
        yield _asked(scene, seed, {"two things": [replace(scene, first=second, second=first), *others]}, random)


def _counts(count: int) -> Iterator[Asked]:
    random = Random("fewer bits: counts")
    for seed in range(count):
        thing, background = random.randrange(len(things())), random.choice(list(COLOUR_WORDS))
        scenes = [Scene("one", background, thing)]
        scenes += [Scene("many", background, thing, count=number) for number in (2, 3, 4)]
        scene = scenes.pop(seed % 4)
        yield _asked(scene, seed, {"count": scenes}, random)


def _asked(scene: Scene, seed: int, others: Mapping[str, Sequence[Scene]], random: Random) -> Asked:
    return Asked(caption(scene, random, plain=True).text, seed, scene, others)


def draw_all(kind: Quantization, count: int) -> list[Pixels]:
    trials = asked(count)
    pipeline = load_pipeline(kind)
    return draw_prompts(pipeline, [each.prompt for each in trials], [each.seed for each in trials], STEPS)


@cache
def _render(scene: Scene) -> Pixels:
    return _small(draw(scene, 256, 256))


def _small(picture: Pixels) -> Pixels:
    block = len(picture) // SIDE
    return picture.reshape(SIDE, block, SIDE, block, 3).mean((1, 3)).round().astype(np.uint8)


def _error(picture: Pixels, other: Pixels) -> float:
    return float(((picture.astype(np.float32) - other) ** 2).mean())


def _decibels(errors: Sequence[float]) -> float:
    return float(10 * np.log10(255**2 / np.mean(errors)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=get_args(Quantization), default=list(get_args(Quantization)))
    parser.add_argument("--count", type=int, default=160, help="trials of one thing")
    options = parser.parse_args()
    artwork.prepare()
    trials, kinds = asked(options.count), list(dict.fromkeys(["none", *options.kinds]))
    with ProcessPoolExecutor(len(kinds), mp_context=get_context("spawn")) as pool:
        drawn = dict(zip(kinds, pool.map(draw_all, kinds, [options.count] * len(kinds)), strict=True))
    measures = Counter(name for each in trials for name in each.others)
    print(f"| weights | {' | '.join(measures)} | nearness to the render, dB | to the picture in fp32, dB |")
    print("|" + "---|" * (len(measures) + 3))
    for kind in kinds:
        print(_row(kind, trials, drawn[kind], drawn["none"], measures))
    print(f"trials: {', '.join(f'{number} {name}' for name, number in measures.items())}")


def _row(
    kind: str, trials: Sequence[Asked], pictures: Sequence[Pixels], exact: Sequence[Pixels], measures: Iterable[str]
) -> str:
    right: dict[str, list[bool]] = {name: [] for name in measures}
    from_render, from_exact = [], []
    for trial, picture, other in zip(trials, pictures, exact, strict=True):
        small = _small(picture)
        from_render.append(_error(small, _render(trial.scene)))
        for name, scenes in trial.others.items():
            right[name].append(from_render[-1] < min(_error(small, _render(scene)) for scene in scenes))
        from_exact.append(_error(picture, other))
    shares = " | ".join(f"{np.mean(each):.1%}" for each in right.values())
    apart = "" if kind == "none" else f"{_decibels(from_exact):.1f}"
    return f"| {kind} | {shares} | {_decibels(from_render):.2f} | {apart} |"


if __name__ == "__main__":
    main()
