"""The evaluation: the shipped folder draws unseen prompts through diffusers, and the judge looks at them.

`python -m training.sprite.judging.evaluate` prints the table and writes it as JSON beside the checkpoints. With
`--quantization int8` the transformer and T5 are Safelight's, whose weights are kept so.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import get_args

import numpy as np
import torch
from diffusers import FluxPipeline

from safelight.engine.devices import Precision
from safelight.engine.families.flux1.components import load_components
from safelight.model.memory.plan import AS_STORED
from safelight.settings import Quantization
from training.sprite.data import artwork
from training.sprite.data.artwork import Pixels
from training.sprite.data.phrases import thing_phrase
from training.sprite.data.things import Category, categories, things
from training.sprite.data.tokens import TEXT_LENGTH
from training.sprite.judging import judge
from training.sprite.judging.judge import Judge, Verdict, load_judge, verdicts
from training.sprite.judging.trials import (
    Trial,
    backgrounds,
    beside_the_point,
    counts,
    free_phrasing,
    held_out_pairs,
    one_thing,
    with_unknown_word,
)
from training.sprite.networks.autoencoder import held_out_psnr
from training.sprite.networks.checkpoints import log
from training.sprite.networks.devices import device, matrix_dtype
from training.sprite.paths import PACKAGE_FOLDER, work_folder
from training.sprite.stages.settling import NEGATIVE_SCALE

BATCH = 16
FEWEST = 8  # trials, however small the share
NEGATIVE_TRIALS = 160  # of each of the two
JUDGE_SCENES = 1000
PSNR_SCENES = 96


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    wanted: float
    trials: Callable[[int], list[Trial]]
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    reached: tuple[float, ...]  # with each of the counts of steps, or once for what has none
    wanted: float
    trials: int


BARS = (
    Bar("one thing", 0.85, one_thing, len(things())),
    Bar("two things, held-out pair and relation", 0.65, held_out_pairs, 200),
    Bar("background", 0.95, backgrounds, 176),
    Bar("count", 0.80, counts, 160),
    Bar("one thing, free phrasing", 0.85, free_phrasing, 160),
    Bar("one thing, with a word never seen", 0.85, with_unknown_word, 80),
    Bar("one thing at a place, with a negative prompt beside the point", 0.85, beside_the_point, 160),
)


def report(
    steps: tuple[int, ...], share: float, quantization: Quantization = "none", *, trains_judge: bool = True
) -> None:
    artwork.prepare()
    if trains_judge:
        judge.train(judge.Schedule())
    measured = list(evaluate(steps, share, quantization))
    name = "evaluation.json" if quantization == "none" else f"evaluation-{quantization}.json"
    (work_folder() / name).write_text(json.dumps([asdict(row) for row in measured], indent=2))
    print(table(measured, steps))


def evaluate(steps: tuple[int, ...], share: float, quantization: Quantization = "none") -> Iterator[Row]:
    """Each bar with each count of steps, after the judge's own; `share` of the trials, for a quicker look."""
    looking, pipeline = load_judge(), load_pipeline(quantization)
    for name, reached in judge.check(looking, _portion(JUDGE_SCENES, share)).items():
        yield _logged(Row(f"the judge, on held-out renders: {name}", (reached,), 0.95, _portion(JUDGE_SCENES, share)))
    for bar in BARS:
        trials = bar.trials(_portion(bar.count, share))
        yield _logged(
            Row(bar.name, tuple(_right(pipeline, looking, trials, count) for count in steps), bar.wanted, len(trials))
        )
    yield from _negative_rows(pipeline, looking, steps, _portion(NEGATIVE_TRIALS, share))
    psnr = round(held_out_psnr(pipeline.vae, _portion(PSNR_SCENES, share)), 2)
    yield _logged(Row("autoencoder, dB PSNR", (psnr,), 30.0, _portion(PSNR_SCENES, share)))


def load_pipeline(quantization: Quantization = "none") -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(PACKAGE_FOLDER, torch_dtype=matrix_dtype()).to(device())
    pipeline.set_progress_bar_config(disable=True)
    if quantization != "none":
        choice = replace(AS_STORED, quantization=quantization, text_encoder_2_quantization=quantization)
        precision = Precision(computation=matrix_dtype(), choice=choice)
        kept = load_components(PACKAGE_FOLDER, device=device(), precision=precision)
        pipeline.transformer, pipeline.text_encoder_2 = kept.transformer, kept.text_encoder_2
    return pipeline


def draw_prompts(
    pipeline: FluxPipeline, prompts: list[str], seeds: list[int], steps: int, negative: list[str] | None = None
) -> list[Pixels]:
    pictures: list[Pixels] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        guidance = {"negative_prompt": negative[part], "true_cfg_scale": NEGATIVE_SCALE} if negative else {}
        drawn = pipeline(
            prompts[part], num_inference_steps=steps, max_sequence_length=TEXT_LENGTH, height=256, width=256,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]], output_type="np", **guidance,
        ).images  # fmt: skip
        pictures += list((drawn * 255).round().astype(np.uint8))
    return pictures


def table(rows: list[Row], steps: tuple[int, ...]) -> str:
    """In Markdown. Points apart are those of the first count of steps less those of the last."""
    lines = [
        f"| measured | {' | '.join(f'{count} steps' for count in steps)} | points apart | wanted | trials |",
        "|" + "---|" * (len(steps) + 4),
    ]
    return "\n".join(lines + [_line(row, len(steps)) for row in rows])


def _line(row: Row, columns: int) -> str:
    in_percent = row.wanted < 1
    shown = [f"{value:.1%}" if in_percent else f"{value}" for value in row.reached]
    apart = f"{100 * (row.reached[0] - row.reached[-1]):+.1f}" if len(row.reached) > 1 else ""
    cells = [row.name, *shown, *[""] * (columns - len(shown)), apart]
    return "| " + " | ".join([*cells, f"{row.wanted:.0%}" if in_percent else f"{row.wanted}", f"{row.trials}"]) + " |"


def _right(pipeline: FluxPipeline, looking: Judge, trials: list[Trial], steps: int) -> float:
    prompts, seeds = [trial.prompt for trial in trials], [trial.seed for trial in trials]
    negative = [trial.negative for trial in trials]
    pictures = draw_prompts(pipeline, prompts, seeds, steps, negative if any(negative) else None)
    right = [trial.is_right(seen) for trial, seen in zip(trials, verdicts_of(looking, pictures), strict=True)]
    return round(sum(right) / len(right), 4)


def verdicts_of(looking: Judge, pictures: list[Pixels]) -> list[Verdict]:
    return [
        verdict for start in range(0, len(pictures), 50) for verdict in verdicts(looking, pictures[start : start + 50])
    ]


def _negative_rows(pipeline: FluxPipeline, looking: Judge, steps: tuple[int, ...], count: int) -> Iterator[Row]:
    """Of both; then of a thing, and of a background, alone."""
    things_gone, backgrounds_gone = (
        tuple(_removed(pipeline, looking, number, range(which, 2 * count, 2)) for number in steps) for which in (0, 1)
    )
    both_gone = tuple(round((one + other) / 2, 4) for one, other in zip(things_gone, backgrounds_gone, strict=True))
    yield _logged(Row("a negative prompt removes what it names", both_gone, 0.80, 2 * count))
    yield _logged(Row("of those, a thing, and another of its kind comes", things_gone, 0.80, count))
    yield _logged(Row("of those, a background, and the thing stays", backgrounds_gone, 0.80, count))


def _removed(pipeline: FluxPipeline, looking: Judge, steps: int, trials: range) -> float:
    """A vague prompt is drawn; then again, with what it happened to show as the negative prompt."""
    prompts, seeds = [_vague_prompt(index) for index in trials], list(trials)
    before = verdicts_of(looking, draw_prompts(pipeline, prompts, seeds, steps))
    negative = [_shown(index, verdict) for index, verdict in zip(trials, before, strict=True)]
    after = verdicts_of(looking, draw_prompts(pipeline, prompts, seeds, steps, negative))
    right = [_is_removed(index, *both) for index, *both in zip(trials, before, after, strict=True)]
    return round(sum(right) / len(trials), 4)


def _vague_prompt(index: int) -> str:
    """In turn a kind of thing, whose member is open, and a thing whose background is open."""
    if index % 2:
        return thing_phrase(things()[_thing(index)].name, "normal", Random(), plain=True)
    return thing_phrase(_kind(index).name, "normal", Random(), plain=True) + " on a white background"


def _shown(index: int, verdict: Verdict) -> str:
    return f"{verdict.background} background" if index % 2 else things()[verdict.first].name


def _is_removed(index: int, before: Verdict, after: Verdict) -> bool:
    """What was named has gone, and what was asked for is still there."""
    if index % 2:
        return after.background != before.background and after.first == _thing(index)
    return after.first != before.first and {before.first, after.first} <= set(_kind(index).members)


def _thing(index: int) -> int:
    return index * 7 % len(things())


def _kind(index: int) -> Category:
    kinds = [category for category in categories() if category.name in ("animal", "person", "fruit", "vehicle", "food")]
    return kinds[index // 2 % len(kinds)]


def _portion(count: int, share: float) -> int:
    return max(FEWEST, round(count * share))


def _logged(row: Row) -> Row:
    log("evaluation", measured=row.name, reached=" ".join(str(value) for value in row.reached))
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--share", type=float, default=1.0, help="of the trials, for a quicker look")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="none")
    parser.add_argument("--judge-as-it-is", action="store_true", help="do not train it to the end first")
    given = parser.parse_args()
    report(tuple(given.steps), given.share, given.quantization, trains_judge=not given.judge_as_it_is)
