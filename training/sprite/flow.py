"""The flow: a small FLUX transformer trained on encoded scenes to point from noise to picture.

Conventions are FluxPipeline's: packed latents, timestep = sigma, velocity = noise - picture.
Weights are kept in fp32; matrices are multiplied in bf16 where the hardware has it.

Two things make each sample count. Many rows are pure noise, where all there is to go by is the text. And the
transformer's middle is asked what each patch is to show, as in REPA (https://arxiv.org/abs/2410.06940), but with
the drawing's own record for an answer; the layer that asks is thrown away.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from training.sprite.captions import SILENCE, caption, mistaken
from training.sprite.checkpoints import Average, load, log, resume_optimizers, save, stoppable
from training.sprite.devices import device, mixed_precision
from training.sprite.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder
from training.sprite.places import BACKGROUNDS
from training.sprite.scenes import Scene
from training.sprite.shards import Shard, available_shards, encode_shards, open_shard
from training.sprite.text import CLIP_WIDTH, T5_WIDTH, TextEncoders, load_text_encoders
from training.sprite.things import things
from training.sprite.tokens import TEXT_LENGTH

CHECKPOINT = "flow.pt"
FIRST_STEPS = 2000  # with the first blocks alone
FIRST_BLOCKS = 2  # single blocks, that find out what each patch shows
LAST_BLOCKS = 6  # single blocks, that remember how it looks
# Up to this sigma a caption may be wrong, and the picture is right. So where a negative prompt has led away from what
# it names, both prompts come to point to the same picture, and guidance does not drive it on and on.
MISTAKEN_UP_TO = 0.8
LONGEST = 0.3  # of gradients: most are that long, and a rare one of 2 would throw Muon off its course
WHOLE = (8, 8)  # the patches of a 256x256 picture
# On a CPU, at this size, the plain attention's backward pass is several times faster than the fused one.
ATTENTION = (
    [SDPBackend.MATH] if device().type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Scenes that are trained on together, in those rows and columns of 256x256 that have all their things."""

    share: float  # of the batches of 256x256; riding and big things are rare among scenes, and have their own
    text_length: int  # tokens of T5; what is cut off is still in CLIP's vector
    rows: slice
    columns: slice
    has_all_of: Callable[[Scene], bool]


VIEWS = (
    View(0.20, 12, slice(2, 6), slice(2, 6), lambda scene: scene.relation == "one" and scene.first_size != "big"),
    View(0.14, 12, slice(1, 7), slice(1, 7), lambda scene: scene.relation == "one" and scene.first_size == "big"),
    View(0.16, 20, slice(2, 6), slice(8), lambda scene: scene.relation == "beside" or scene.count == 2),
    View(0.14, 20, slice(8), slice(2, 6), lambda scene: scene.relation in ("above", "on")),
    View(0.16, 20, slice(8), slice(1, 7), lambda scene: scene.relation == "riding"),
    View(0.20, TEXT_LENGTH, slice(8), slice(8), lambda _: True),
)


@dataclass(frozen=True)
class Schedule:
    steps: int = 12500
    anneal: int = 10500
    blocks: int = FIRST_BLOCKS + LAST_BLOCKS  # single ones
    warm_up: int = 100
    batch: int = 48
    peak: float = 1.2e-3  # 2e-3 kept the layout loss from falling below 0.4; from 1.2e-3 on it went to 0.24
    muon_strength: float = 0.6
    silence_share: float = 0.06
    mistaken_share: float = 0.08  # of the rows, whose caption is of another picture
    other_sizes_share: float = 0.3  # of the batches; with a tenth, riding was a blur in them
    first_step_share: float = 0.65  # of the rows, at pure noise, where few-step pictures are decided
    layout_weight: float = 0.1
    steps_per_new_shard: int = 120  # each picture is seen some six times, with other words and other noise
    most_shards: int = 100
    compiles: bool = False  # minutes at the start, then less for each step; wants a C++ compiler
    seed: int = 3


@dataclass(frozen=True, slots=True)
class Batch:
    latents: Tensor  # (rows, tokens, 128)
    image_ids: Tensor  # (1, tokens, 3)
    layouts: Tensor  # (rows, tokens, 4), as scenes.draw_with_layout has it
    backgrounds: Tensor  # (rows,), of places.BACKGROUNDS
    texts: list[str]
    is_open: Tensor  # (rows,), whether the caption names a kind of thing, or nothing
    is_mistaken: Tensor  # (rows,), whether the caption is of another picture
    text_length: int

    @property
    def has_text(self) -> Tensor:
        return torch.tensor([text != "" for text in self.texts], device=self.latents.device)


class Taught(nn.Module):
    """The transformer, answering with its velocity and with what its middle makes of each patch.

    The middle's answer is (rows, tokens, things + 4 + backgrounds): scores of no thing and of each thing, then right,
    down and side, then scores of what is behind.
    """

    MIDDLE = FIRST_BLOCKS - 1  # of the single blocks

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.asked = _asking(transformer.inner_dim).to(device())
        self._seen: list[Tensor] = []
        transformer.single_transformer_blocks[self.MIDDLE].register_forward_hook(
            lambda _block, _given, answer: self._seen.append(answer[1])
        )

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._seen.clear()
        answer: Tensor = self.transformer(**inputs)[0]
        return answer, self.asked(self._seen.pop())


def _asking(width: int) -> nn.Sequential:
    """Begins at zero: it learns to read before what it reads is bent to its answers."""
    reading = nn.Linear(width, len(things()) + 4 + len(BACKGROUNDS))
    nn.init.zeros_(reading.weight)
    nn.init.zeros_(reading.bias)
    return nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), reading)


def new_transformer(blocks: int = FIRST_BLOCKS + LAST_BLOCKS) -> FluxTransformer2DModel:
    """Of its single blocks, the last ones do nothing yet: `patches` teaches them."""
    transformer = FluxTransformer2DModel(
        in_channels=128, num_layers=3, num_single_layers=blocks, attention_head_dim=64,
        num_attention_heads=4, joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )  # fmt: skip
    for name, param in transformer.named_parameters():
        if (".norm" in name and ".linear" in name) or name.startswith(("proj_out", "norm_out.linear")):
            nn.init.zeros_(param)
    for block in transformer.single_transformer_blocks[FIRST_BLOCKS:]:
        nn.init.zeros_(block.proj_out.weight)
        nn.init.zeros_(block.proj_out.bias)
        block.norm.linear.bias.data[-transformer.inner_dim :] = 1  # the gate is open, or nothing could be learnt
    # The pooled text begins as loud as the time step, or it would go unheard for a long while.
    transformer.time_text_embed.text_embedder.linear_2.weight.data.mul_(4)
    return transformer.to(device())


def compile_blocks(transformer: FluxTransformer2DModel) -> None:
    """One kernel for all sizes of a block, where there would be many small ones."""
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(dynamic=True)


def load_transformer(checkpoint: str = CHECKPOINT) -> FluxTransformer2DModel:
    transformer = new_transformer()
    load_grown(transformer, load(work_folder() / checkpoint)["average"])
    return transformer.eval().requires_grad_(False)


def load_grown(transformer: FluxTransformer2DModel, weights: dict[str, Tensor]) -> None:
    """Weights of a transformer that had fewer single blocks, too: those that it had not do nothing yet."""
    transformer.load_state_dict(transformer.state_dict() | weights)


def velocity(
    transformer: nn.Module, noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], grid: tuple[int, int]
) -> Tensor:
    answer: Tensor = transformer(**inputs(noisy, sigma, text, image_ids(grid)))[0]
    return answer


def inputs(noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], ids: Tensor) -> dict[str, Any]:
    hidden, pooled = text
    return {
        "hidden_states": noisy, "timestep": sigma.to(noisy.dtype), "encoder_hidden_states": hidden,
        "pooled_projections": pooled, "img_ids": ids,
        "txt_ids": torch.zeros(hidden.shape[1], 3, device=noisy.device), "return_dict": False,
    }  # fmt: skip


def image_ids(grid: tuple[int, int]) -> Tensor:
    """Zero, row and column of every token, as FluxPipeline numbers them."""
    height, width = grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros(height, width), rows, columns], -1).view(-1, 3).to(device())


def encoded_text(encoders: TextEncoders, texts: list[str]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        hidden, pooled = encoders(texts)
    return hidden.float(), pooled.float()


def train(schedule: Schedule) -> None:
    if steps_done() >= schedule.steps:
        return
    torch.manual_seed(schedule.seed)
    transformer = new_transformer(schedule.blocks)
    taught = Taught(transformer)
    if schedule.compiles:
        compile_blocks(transformer)
    chosen = optimizers(taught, schedule.peak, weight_decay=0.01, strength=schedule.muon_strength)
    average = Average.of(transformer, 0.997)
    step, begun = _resume(taught, chosen, average)
    first = step
    encoders = load_text_encoders()
    started, losses, lowest = time.time(), np.zeros((0, 3)), float("inf")
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            set_learning_rate(chosen, learning_rate(schedule, step, begun))
            losses = np.append(losses, [_train_step(taught, encoders, chosen, _batch(schedule, step), schedule)], 0)
            average.update(transformer, step)
            step += 1
            if step % 50 == 0:
                speed = (step - first) * schedule.batch / (time.time() - started)
                loss, layout, guess = np.nanmean(losses[-50:], 0).round(4).tolist()
                log("flow", step=step, loss=loss, layout=layout, guess=guess, samples_per_s=round(speed, 2))
                lowest = min(lowest, loss)
                if not loss < 2 * lowest:
                    raise SystemExit(f"loss {loss} at step {step}: not saved; start again with a lower --peak to go on")
            if step % 100 == 0 or step == schedule.steps:
                _save(taught, chosen, average, step, begun)
            if step % schedule.steps_per_new_shard == 0:
                _add_shard(schedule.most_shards)
        _save(taught, chosen, average, step, begun)


def _train_step(
    taught: nn.Module, encoders: TextEncoders, chosen: list[torch.optim.Optimizer], batch: Batch, schedule: Schedule
) -> tuple[float, float, float]:
    """One optimizer step; before it, the losses of velocity, of layout, and of what pure noise becomes of things."""
    noise = torch.randn_like(batch.latents)
    sigma = sigmas(batch.is_open, schedule.first_step_share)
    sigma = torch.where(batch.is_mistaken, MISTAKEN_UP_TO * torch.rand_like(sigma), sigma)
    noisy = torch.lerp(batch.latents, noise, sigma[:, None, None])
    with sdpa_kernel(ATTENTION), mixed_precision():
        hidden, pooled = encoded_text(encoders, batch.texts)
        text = hidden[:, : batch.text_length], pooled
        answer, seen = taught(**inputs(noisy, sigma, text, batch.image_ids[0]))
    error = (answer.float() - (noise - batch.latents)).square().mean(-1)
    loss, layout = error.mean(), _layout_loss(seen.float(), batch)
    descend(loss + schedule.layout_weight * layout, taught, chosen, LONGEST)
    is_guess = (sigma == 1)[:, None] & (batch.layouts[..., 0] > 0) & batch.has_text[:, None]
    return loss.item(), layout.item(), error[is_guess].mean().item()


def sigmas(is_open: Tensor, first_step_share: float) -> Tensor:
    """Pure noise for some; for the rest a logit-normal leaning to the noisy side, where the text still decides.

    Few of the open ones are pure noise: there they are a mean of what they could be, and soon learnt.
    """
    anywhere = (torch.randn(len(is_open), device=device()) + 0.7).sigmoid()
    share = first_step_share * torch.where(is_open, 0.25, 1.0)
    return torch.where(torch.rand_like(anywhere) < share, 1.0, anywhere)


def _layout_loss(seen: Tensor, batch: Batch) -> Tensor:
    """Of rows with a caption: which thing each patch shows, where there is one which part of it, and what is behind."""
    seen, layouts = seen[batch.has_text], batch.layouts[batch.has_text]
    shown = layouts[..., 0].long()
    behind = batch.backgrounds[batch.has_text, None].expand_as(shown)
    thing, part, background = seen.split((len(things()) + 1, 3, len(BACKGROUNDS)), -1)
    wrong = cross_entropy(thing.flatten(0, 1), shown.flatten())
    wrong += cross_entropy(background.flatten(0, 1), behind.flatten())
    away = (part - layouts[..., 1:]).square().mean(-1)
    return wrong + (away * (shown > 0)).sum() / (shown > 0).sum().clamp(min=1)


def _batch(schedule: Schedule, step: int) -> Batch:
    """Rows of shards of one size: all their patches, or those of one view of 256x256."""
    random = Random(f"flow {schedule.seed} {step}")
    shards = [open_shard(number) for number in available_shards()]
    others = sorted({shard.grid for shard in shards} - {WHOLE})
    grid = random.choice(others) if others and random.random() < schedule.other_sizes_share else WHOLE
    fitting = [shard for shard in shards if shard.grid == grid]
    view = _random_view(random)
    is_whole = grid != WHOLE or view is VIEWS[-1]
    views = [view if grid == WHOLE else _random_view(random) for _ in range(schedule.batch)]
    rows = [_row(random.choice(fitting), view, random) for view in views]
    latents = torch.from_numpy(np.stack([shard.latents[index] for shard, index in rows])).to(device()).float()
    layouts = torch.from_numpy(np.stack([shard.layouts[index] for shard, index in rows])).to(device()).float()
    seen = (tokens if is_whole else _part(tokens, view) for tokens in (latents, image_ids(grid)[None], layouts))
    scenes = [shard.scenes[index] for shard, index in rows]
    backgrounds = torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes], device=device())
    described = [mistaken(scene, random) if random.random() < schedule.mistaken_share else scene for scene in scenes]
    said = [SILENCE if random.random() < schedule.silence_share else caption(scene, random) for scene in described]
    is_open = torch.tensor([words.is_open for words in said], device=device())
    is_mistaken = torch.tensor([told != scene for told, scene in zip(described, scenes, strict=True)], device=device())
    text_length = TEXT_LENGTH if is_whole else view.text_length
    return Batch(*seen, backgrounds, [words.text for words in said], is_open, is_mistaken, text_length)


def _random_view(random: Random) -> View:
    return random.choices(VIEWS, [view.share for view in VIEWS])[0]


def _part(tokens: Tensor, view: View) -> Tensor:
    return tokens.unflatten(1, WHOLE)[:, view.rows, view.columns].flatten(1, 2)


def _row(shard: Shard, view: View, random: Random) -> tuple[Shard, int]:
    return shard, random.choice(_fitting(shard, view))


@cache
def _fitting(shard: Shard, view: View) -> tuple[int, ...]:
    return tuple(index for index, scene in enumerate(shard.scenes) if view.has_all_of(scene))


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
    average.weights |= state["average"]
    resume_optimizers(chosen, state)
    return int(state["step"]), int(state.get("begun", state["step"]))


def _save(taught: Taught, chosen: list[torch.optim.Optimizer], average: Average, step: int, begun: int) -> None:
    state = {"weights": taught.transformer.state_dict(), "asked": taught.asked.state_dict(), "average": average.weights}
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
