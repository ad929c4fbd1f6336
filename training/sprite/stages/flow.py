"""The flow: a small FLUX transformer trained on encoded scenes to point from noise to picture.

Weights are kept in fp32; matrices are multiplied in bf16 where the hardware has it.

Two things make each sample count. Many rows are pure noise or nearly, where all there is to go by is the text. And the
transformer's middle is asked what each patch is to show, as in REPA (https://arxiv.org/abs/2410.06940), but with
the drawing's own record for an answer; the layer that asks is thrown away.
"""

import argparse
import time
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import cross_entropy

from training.sprite.networks.checkpoints import Average, load, log, resume_optimizers, save, stoppable
from training.sprite.networks.devices import device, mixed_precision
from training.sprite.networks.network import (
    ATTENTION,
    CHECKPOINT,
    FIRST_BLOCKS,
    LAST_BLOCKS,
    Taught,
    compile_blocks,
    encoded_text,
    inputs,
    load_grown,
    new_transformer,
    told_apart,
)
from training.sprite.networks.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.networks.text import TextEncoders, load_text_encoders
from training.sprite.paths import work_folder
from training.sprite.stages.batches import Batch, Shares, batch
from training.sprite.stages.settling import EARLY, guided_loss, settle
from training.sprite.stages.shards import available_shards, encode_shards

FIRST_STEPS = 2000  # with the first blocks alone
# Up to this sigma a caption may be wrong, and the picture is right (where it settles, further up). So where a negative
# prompt has led away from what it names, both prompts come to point to the same picture, and guidance does not drive it
# on and on.
MISTAKEN_UP_TO = 0.5
NEARLY_SHARE = 0.6  # of the first-step rows: without them 32 steps, which pass there, drew fewer things right than 4
LONGEST = 0.3  # of gradients: most are that long, and a rare one of 2 would throw Muon off its course


@dataclass(frozen=True)
class Schedule:
    steps: int = 12500
    anneal: int = 10500
    blocks: int = FIRST_BLOCKS + LAST_BLOCKS  # single ones
    warm_up: int = 100
    batch: int = 48
    peak: float = 7e-4  # 8e-4 was seen to run away once
    muon_strength: float = 0.6
    shares: Shares = field(default_factory=Shares)
    first_step_share: float = 0.65  # of the rows, at pure noise or nearly, where pictures are decided
    # Of the rows that can be led on: settling says which.
    settled_share: float = 0.8
    asking_steps: int = 300  # of the layer that asks the middle, alone, where weights were restored without it
    layout_weight: float = 0.1
    steps_per_new_shard: int = 120  # each picture is seen some six times, with other words and other noise
    most_shards: int = 100
    compiles: bool = False  # minutes at the start, then less for each step; wants a C++ compiler
    seed: int = 3


def train(schedule: Schedule) -> None:
    if steps_done() >= schedule.steps:
        return
    torch.manual_seed(schedule.seed)
    transformer = new_transformer(schedule.blocks)
    taught = Taught(transformer)
    chosen = optimizers(taught, schedule.peak, weight_decay=0.01, strength=schedule.muon_strength)
    average = Average.of(transformer, 0.997)
    step, begun = _resume(taught, chosen, average)
    first = step
    encoders = load_text_encoders()
    if step and not taught.has_learnt_to_ask:
        _teach_to_ask(taught, encoders, schedule)
    if schedule.compiles:
        compile_blocks(transformer)
    started, losses, lowest = time.time(), np.zeros((0, 4)), float("inf")
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            set_learning_rate(chosen, learning_rate(schedule, step, begun))
            settles = schedule.blocks > FIRST_BLOCKS and taught.has_learnt_to_ask
            done = _train_step(taught, encoders, chosen, schedule, step, settles=settles)
            losses = np.append(losses, [done], 0)
            average.update(transformer, step - begun)
            step += 1
            if step % 50 == 0:
                speed = (step - first) * schedule.batch / (time.time() - started)
                loss, layout, guess, guided = np.nanmean(losses[-50:], 0).round(4).tolist()
                told = {"loss": loss, "layout": layout, "guess": guess, "guided": guided}
                log("flow", step=step, **told, samples_per_s=round(speed, 2))
                lowest = min(lowest, loss)
                if not loss < 2 * lowest:
                    raise SystemExit(f"loss {loss} at step {step}: not saved; start again with a lower --peak to go on")
            if step % 100 == 0 or step == schedule.steps:
                _save(taught, chosen, average, step, begun)
            if step % schedule.steps_per_new_shard == 0:
                _add_shard(schedule.most_shards)
        _save(taught, chosen, average, step, begun)


def _teach_to_ask(taught: Taught, encoders: TextEncoders, schedule: Schedule) -> None:
    """The layer that asks the middle learns to read what is there, before anything is settled by its answers."""
    taught.transformer.requires_grad_(False)
    optimizer = torch.optim.AdamW(taught.asked.parameters(), lr=3e-3)
    for step in range(-schedule.asking_steps, 0):
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        _, layout, _, _ = _train_step(taught, encoders, [optimizer], schedule, step, settles=False)
        if step % 50 == 49:
            log("asking", step=schedule.asking_steps + step + 1, layout=round(layout, 4))
    taught.transformer.requires_grad_(True)


def _train_step(
    taught: Taught,
    encoders: TextEncoders,
    chosen: list[torch.optim.Optimizer],
    schedule: Schedule,
    step: int,
    *,
    settles: bool,
) -> tuple[float, float, float, float]:
    """One optimizer step; before it, the losses of velocity, of layout, of what pure noise becomes of things, and of
    what guidance makes of two answers.
    """
    random = Random(f"flow {schedule.seed} {step}")
    rows = batch(schedule.batch, schedule.shares if settles else replace(schedule.shares, kinds=0), random)
    noise = torch.randn_like(rows.latents)
    sigma = sigmas(rows.is_open, schedule.first_step_share)
    sigma = torch.where(rows.is_mistaken, MISTAKEN_UP_TO * torch.rand_like(sigma), sigma)
    with sdpa_kernel(ATTENTION), mixed_precision():
        if settles:
            rows, noise, sigma = settle(taught, encoders, rows, noise, sigma, schedule.settled_share, random)
        noisy = torch.lerp(rows.latents, noise, sigma[:, None, None])
        text = encoded_text(encoders, rows.texts, rows.view.text_length)
        answer, seen = taught(**inputs(noisy, sigma, text, rows.image_ids))
    wrong = answer.float() - (noise - rows.latents)
    error = wrong.square().mean(-1)
    loss, layout = (error.mean(-1) * rows.weights).mean(), _layout_loss(seen.float(), rows)
    guided = guided_loss(wrong, rows)
    descend(loss + guided + schedule.layout_weight * layout, taught, chosen, LONGEST)
    is_guess = (sigma == 1)[:, None] & (rows.layouts[..., 0] > 0) & rows.has_text[:, None]
    return loss.item(), layout.item(), error[is_guess].mean().item(), guided.item()


def sigmas(is_open: Tensor, first_step_share: float) -> Tensor:
    """Pure noise for some, where each picture begins, or a little less of it, which 32 steps pass through and 4 do not;
    for the rest a logit-normal leaning to the noisy side, where the text still decides.

    Few of the open ones are pure noise: there they are a mean of what they could be, and soon learnt.
    """
    anywhere = (torch.randn(len(is_open), device=device()) + 0.7).sigmoid()
    share = first_step_share * torch.where(is_open, 0.25, 1.0)
    first = torch.where(torch.rand_like(anywhere) < NEARLY_SHARE, torch.empty_like(anywhere).uniform_(EARLY, 1), 1.0)
    return torch.where(torch.rand_like(anywhere) < share, first, anywhere)


def _layout_loss(seen: Tensor, rows: Batch) -> Tensor:
    """Of rows with a caption that show something already: which thing each patch shows, where there is one which part
    of it, and what is behind.
    """
    seen, layouts = seen[rows.is_seen], rows.layouts[rows.is_seen]
    shown = layouts[..., 0].long()
    behind = rows.backgrounds[rows.is_seen, None].expand_as(shown)
    thing, part, background = told_apart(seen)
    wrong = cross_entropy(thing.flatten(0, 1), shown.flatten())
    wrong += cross_entropy(background.flatten(0, 1), behind.flatten())
    away = (part - layouts[..., 1:]).square().mean(-1)
    return wrong + (away * (shown > 0)).sum() / (shown > 0).sum().clamp(min=1)


def _add_shard(most: int) -> None:
    have = len(available_shards())
    if have < most:
        encode_shards(range(have + 1))


def steps_done() -> int:
    path = work_folder() / CHECKPOINT
    return int(load(path)["step"]) if path.exists() else 0


def _resume(taught: Taught, chosen: list[torch.optim.Optimizer], average: Average) -> tuple[int, int]:
    """The step to go on from, and the one that the optimizers began at."""
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0, 0
    state = load(path)
    load_grown(taught.transformer, state["weights"])
    if "asked" in state:
        taught.asked.load_state_dict(state["asked"])
    taught.prices += state.get("prices", 0)
    average.weights |= state["average"]
    resume_optimizers(chosen, state)
    return int(state["step"]), int(state.get("begun", state["step"]))


def _save(taught: Taught, chosen: list[torch.optim.Optimizer], average: Average, step: int, begun: int) -> None:
    state = {"weights": taught.transformer.state_dict(), "asked": taught.asked.state_dict(), "average": average.weights}
    state |= {"prices": taught.prices}
    optimizers = [optimizer.state_dict() for optimizer in chosen]
    save(work_folder() / CHECKPOINT, state | {"optimizers": optimizers, "step": step, "begun": begun})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    parser.add_argument("--peak", type=float, default=Schedule.peak, help="of the learning rate")
    parser.add_argument("--compile", action="store_true", help="the blocks; pays for runs of more than ten minutes")
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal, peak=given.peak, compiles=given.compile))
