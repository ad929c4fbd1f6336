"""The evaluation: the shipped folder draws unseen prompts through diffusers, and the judge looks at them.

`python -m training.sprite.evaluate` prints the table and writes it as JSON beside the checkpoints.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import FluxPipeline

from training.sprite.artwork import Pixels
from training.sprite.autoencoder import held_out_psnr
from training.sprite.checkpoints import log
from training.sprite.devices import device, matrix_dtype
from training.sprite.judge import Judge, Verdict, check, load_judge, verdicts
from training.sprite.paths import PACKAGE_FOLDER, work_folder
from training.sprite.things import categories, things
from training.sprite.tokens import TEXT_LENGTH
from training.sprite.trials import Trial, backgrounds, counts, free_phrasing, held_out_pairs, one_thing

BATCH = 16
NEGATIVE_SCALE = 3.0


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    wanted: float
    trials: Callable[[int], list[Trial]]
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    steps: int
    reached: float
    wanted: float
    trials: int


BARS = (
    Bar("one thing", 0.85, one_thing, len(things())),
    Bar("two things, held-out pair and relation", 0.65, held_out_pairs, 200),
    Bar("background", 0.95, backgrounds, 176),
    Bar("count", 0.80, counts, 160),
    Bar("one thing, free phrasing", 0.85, free_phrasing, 160),
)


def report(steps: tuple[int, ...], share: float) -> None:
    measured = evaluate(steps, share)
    (work_folder() / "evaluation.json").write_text(json.dumps([asdict(row) for row in measured], indent=2))
    print(table(measured))


def evaluate(steps: tuple[int, ...], share: float) -> list[Row]:
    pipeline, judge = load_pipeline(), load_judge()
    log("evaluation", judge=json.dumps(check(judge, 400)))
    rows = [_row(pipeline, judge, bar, count, share) for count in steps for bar in BARS]
    rows += [negative_row(pipeline, judge, count, max(8, round(80 * share))) for count in steps]
    psnr = held_out_psnr(pipeline.vae, max(8, round(96 * share)))
    return [*rows, Row("autoencoder, dB PSNR", 0, round(psnr, 2), 30.0, round(96 * share))]


def load_pipeline() -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(PACKAGE_FOLDER, torch_dtype=matrix_dtype()).to(device())
    pipeline.set_progress_bar_config(disable=True)
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


def negative_row(pipeline: FluxPipeline, judge: Judge, steps: int, count: int) -> Row:
    """A vague prompt is drawn; then again, with what it happened to show as the negative prompt."""
    prompts = [_vague_prompt(index) for index in range(count)]
    seeds = list(range(count))
    before = verdicts(judge, draw_prompts(pipeline, prompts, seeds, steps))
    named = [_shown(index, verdict) for index, verdict in enumerate(before)]
    after = verdicts(judge, draw_prompts(pipeline, prompts, seeds, steps, negative=named))
    right = [_shown(index, verdict) != name for index, (verdict, name) in enumerate(zip(after, named, strict=True))]
    return Row("negative prompt removes what it names", steps, _share(right), 0.80, count)


def table(rows: list[Row]) -> str:
    lines = ["| measured | steps | reached | wanted | trials |", "|---|---|---|---|---|"]
    lines += [f"| {row.name} | {row.steps or '-'} | {row.reached} | {row.wanted} | {row.trials} |" for row in rows]
    return "\n".join(lines)


def _row(pipeline: FluxPipeline, judge: Judge, bar: Bar, steps: int, share: float) -> Row:
    trials = bar.trials(max(8, round(bar.count * share)))
    pictures = draw_prompts(pipeline, [trial.prompt for trial in trials], [trial.seed for trial in trials], steps)
    right = [trial.is_right(seen) for trial, seen in zip(trials, verdicts_of(judge, pictures), strict=True)]
    log("evaluation", bar=bar.name, steps=steps, reached=_share(right))
    return Row(bar.name, steps, _share(right), bar.wanted, len(trials))


def verdicts_of(judge: Judge, pictures: list[Pixels]) -> list[Verdict]:
    return [
        verdict for start in range(0, len(pictures), 50) for verdict in verdicts(judge, pictures[start : start + 50])
    ]


def _vague_prompt(index: int) -> str:
    """In turn a kind of thing, whose member is open, and a thing whose background is open."""
    if index % 2:
        return f"a {things()[index * 7 % len(things())].name}"
    kinds = [category for category in categories() if category.name in ("animal", "person", "fruit", "vehicle", "food")]
    return f"a {kinds[index // 2 % len(kinds)].name} on a white background"


def _shown(index: int, verdict: Verdict) -> str:
    return f"{verdict.background} background" if index % 2 else things()[verdict.first].name


def _share(right: list[bool]) -> float:
    return round(sum(right) / max(1, len(right)), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--share", type=float, default=1.0, help="of the trials, for a quicker look")
    given = parser.parse_args()
    report(tuple(given.steps), given.share)
