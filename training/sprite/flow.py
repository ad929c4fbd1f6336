"""The flow: a small FLUX transformer trained on encoded scenes to point from noise to picture.

Conventions are FluxPipeline's: packed latents, timestep = sigma, velocity = noise - picture.
Weights are kept in fp32; matrices are multiplied in bf16.

Two things make each sample count. Many rows are pure noise, where all there is to go by is the text. And the
transformer's middle is asked what each patch is to show, as in REPA (https://arxiv.org/abs/2410.06940), but with
the drawing's own record for an answer; the layer that asks is thrown away.
"""

import argparse
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from training.sprite.captions import caption
from training.sprite.checkpoints import Average, load, log, resume_optimizers, save, stop_request
from training.sprite.devices import device, mixed_precision
from training.sprite.optimizer import learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder
from training.sprite.shards import Shard, available_shards, encode_shards, open_shard
from training.sprite.text import CLIP_WIDTH, T5_WIDTH, TextEncoders, load_text_encoders
from training.sprite.things import things
from training.sprite.tokens import TEXT_LENGTH

CHECKPOINT = "flow.pt"
# The patches of a 256x256 picture that one thing of usual size lies in, as rows and columns of the grid.
CLOSE = (slice(2, 7), slice(1, 7))
# On a CPU, at this size, the plain attention's backward pass is several times faster than the fused one.
ATTENTION = (
    [SDPBackend.MATH] if device().type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
)


@dataclass(frozen=True)
class Schedule:
    steps: int = 30_000
    anneal: int = 30_000  # falling from the first step on
    warm_up: int = 100
    batch: int = 32
    peak: float = 1.2e-3  # 2e-3 kept the layout loss from falling below 0.4; from 1.2e-3 on it went to 0.24
    muon_strength: float = 0.6
    silence_share: float = 0.1
    one_thing_steps: int = 10_000  # until then most rows show one thing, or its name goes unlearnt for long
    one_thing_share: float = 0.85
    close_share: float = 0.7  # of the batches of 256x256: only one thing and the patches about it, at half the cost
    first_step_share: float = 0.4  # of the rows, at pure noise, where few-step pictures are decided
    layout_weight: float = 0.1
    steps_per_new_shard: int = 240
    most_shards: int = 400
    compiles: bool = True  # only the pass for 256x256: others would each take minutes to compile
    seed: int = 3


@dataclass(frozen=True, slots=True)
class Batch:
    latents: Tensor
    texts: list[str]
    grid: tuple[int, int]
    layouts: Tensor | None = None  # (rows, tokens, 4), as scenes.draw_with_layout has it
    is_close: bool = False


class Taught(nn.Module):
    """The transformer, answering with its velocity and with what its middle makes of each patch.

    The middle's answer is (rows, tokens, things + 4): scores of no thing and of each thing, then right, down, side.
    """

    MIDDLE = 1  # of the single blocks

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.asked = nn.Linear(transformer.inner_dim, len(things()) + 4).to(device())
        self._seen: list[Tensor] = []
        transformer.single_transformer_blocks[self.MIDDLE].register_forward_hook(
            lambda _block, _given, answer: self._seen.append(answer[1])
        )

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._seen.clear()
        answer: Tensor = self.transformer(**inputs)[0]
        return answer, self.asked(self._seen.pop())


def new_transformer() -> FluxTransformer2DModel:
    transformer = FluxTransformer2DModel(
        in_channels=128, num_layers=3, num_single_layers=6, attention_head_dim=64, num_attention_heads=4,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )  # fmt: skip
    for name, param in transformer.named_parameters():
        if (".norm" in name and ".linear" in name) or name.startswith(("proj_out", "norm_out.linear")):
            nn.init.zeros_(param)
    # The pooled text begins as loud as the time step, or it would go unheard for a long while.
    transformer.time_text_embed.text_embedder.linear_2.weight.data.mul_(4)
    return transformer.to(device())


def load_transformer(checkpoint: str = CHECKPOINT) -> FluxTransformer2DModel:
    transformer = new_transformer()
    transformer.load_state_dict(load(work_folder() / checkpoint)["average"])
    return transformer.eval().requires_grad_(False)


def velocity(
    transformer: nn.Module, noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], grid: tuple[int, int]
) -> Tensor:
    answer: Tensor = transformer(**inputs(noisy, sigma, text, grid))[0]
    return answer


def inputs(noisy: Tensor, sigma: Tensor, text: tuple[Tensor, Tensor], grid: tuple[int, int]) -> dict[str, Any]:
    hidden, pooled = text
    return {
        "hidden_states": noisy, "timestep": sigma.to(noisy.dtype), "encoder_hidden_states": hidden,
        "pooled_projections": pooled, "img_ids": image_ids(grid),
        "txt_ids": torch.zeros(TEXT_LENGTH, 3, device=noisy.device), "return_dict": False,
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
    torch.manual_seed(schedule.seed)
    transformer = new_transformer()
    taught = Taught(transformer)
    chosen = optimizers(taught, schedule.peak, weight_decay=0.01, strength=schedule.muon_strength)
    average = Average.of(transformer, 0.999)
    step = first = _resume(taught, chosen, average)
    compiled = torch.compile(taught, dynamic=False) if schedule.compiles else taught
    encoders = load_text_encoders()
    started, losses = time.time(), np.zeros((0, 2))
    stop = stop_request()
    while step < schedule.steps and not stop.is_set():
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        set_learning_rate(chosen, _rate(schedule, step))
        batch = _batch(schedule, step)
        model = compiled if batch.grid == (8, 8) else taught
        losses = np.append(losses[-49:], [_train_step(model, encoders, chosen, batch, schedule)], 0)
        average.update(transformer, step)
        step += 1
        if step % 50 == 0:
            speed = (step - first) * schedule.batch / (time.time() - started)
            loss, layout = losses.mean(0).round(4).tolist()
            log("flow", step=step, loss=loss, layout=layout, samples_per_s=round(speed, 2))
        if step % 100 == 0 or step == schedule.steps:
            _save(taught, chosen, average, step)
        if step % schedule.steps_per_new_shard == 0:
            _add_shard(schedule.most_shards)
    _save(taught, chosen, average, step)


def _train_step(
    taught: nn.Module, encoders: TextEncoders, chosen: list[torch.optim.Optimizer], batch: Batch, schedule: Schedule
) -> tuple[float, float]:
    """One optimizer step; the losses of velocity and of layout before it."""
    noise = torch.randn_like(batch.latents)
    sigma = _sigmas(len(noise), schedule.first_step_share)
    noisy = torch.lerp(batch.latents, noise, sigma[:, None, None])
    with sdpa_kernel(ATTENTION), mixed_precision():
        given = inputs(noisy, sigma, encoded_text(encoders, batch.texts), batch.grid)
        if batch.is_close:
            given["img_ids"] = _close_up(given["img_ids"][None])[0]
        answer, seen = taught(**given)
    loss = (answer.float() - (noise - batch.latents)).square().mean()
    layout = _layout_loss(seen.float(), batch)
    descend(loss + schedule.layout_weight * layout, taught, chosen)
    return loss.item(), layout.item()


def descend(loss: Tensor, model: nn.Module, chosen: list[torch.optim.Optimizer]) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in chosen:
        optimizer.step()
        optimizer.zero_grad()


def _sigmas(count: int, first_step_share: float) -> Tensor:
    """Pure noise for some; for the rest a logit-normal leaning to the noisy side, where the text still decides."""
    anywhere = (torch.randn(count, device=device()) + 0.7).sigmoid()
    return torch.where(torch.rand_like(anywhere) < first_step_share, 1.0, anywhere)


def _layout_loss(seen: Tensor, batch: Batch) -> Tensor:
    """Of rows with a caption: which thing each patch shows, and, where there is one, which part of it."""
    said = torch.tensor([text != "" for text in batch.texts], device=seen.device)
    assert batch.layouts is not None
    seen, layouts = seen[said], batch.layouts[said]
    shown = layouts[..., 0].long()
    wrong = cross_entropy(seen[..., :-3].flatten(0, 1), shown.flatten())
    away = (seen[..., -3:] - layouts[..., 1:]).square().mean(-1)
    return wrong + (away * (shown > 0)).sum() / (shown > 0).sum().clamp(min=1)


def _batch(schedule: Schedule, step: int) -> Batch:
    """Rows of shards of one size: the size of a shard drawn by chance, and the shards of that size."""
    random = Random(f"flow {schedule.seed} {step}")
    shards = [open_shard(number) for number in available_shards()]
    size = random.choice(shards).grid
    fitting = [shard for shard in shards if shard.grid == size]
    is_close = size == (8, 8) and random.random() < schedule.close_share
    rows = [_row(random.choice(fitting), random, schedule, step, is_close) for _ in range(schedule.batch)]
    latents, layouts = (torch.from_numpy(np.stack([row[i] for row in rows])).to(device()).float() for i in (0, 1))
    if is_close:
        latents, layouts = _close_up(latents), _close_up(layouts)
    return Batch(latents, [text for _, _, text in rows], size, layouts, is_close)


def _close_up(tokens: Tensor) -> Tensor:
    """Of (rows, 64, width), those patches that one thing of usual size lies in."""
    return tokens.unflatten(1, (8, 8))[:, *CLOSE].flatten(1, 2)


def _row(
    shard: Shard, random: Random, schedule: Schedule, step: int, is_close: bool
) -> tuple[np.ndarray, np.ndarray, str]:
    is_single = step < schedule.one_thing_steps and random.random() < schedule.one_thing_share
    rows = shard.close if is_close else shard.singles if is_single else range(len(shard.latents))
    index = random.choice(rows)
    text = "" if random.random() < schedule.silence_share else caption(shard.scenes[index], random).text
    return shard.latents[index], shard.layouts[index], text


def _add_shard(most: int) -> None:
    have = len(available_shards())
    if have < most:
        encode_shards(range(have + 1))


def _rate(schedule: Schedule, step: int) -> float:
    return learning_rate(
        step, peak=schedule.peak, warm_up=schedule.warm_up, total=schedule.steps, anneal=schedule.anneal
    )


def _resume(taught: Taught, chosen: list[torch.optim.Optimizer], average: Average) -> int:
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0
    state = load(path)
    taught.transformer.load_state_dict(state["weights"])
    if "asked" in state:
        taught.asked.load_state_dict(state["asked"])
    average.weights = state["average"]
    resume_optimizers(chosen, state)
    return int(state["step"])


def _save(taught: Taught, chosen: list[torch.optim.Optimizer], average: Average, step: int) -> None:
    state = {"weights": taught.transformer.state_dict(), "asked": taught.asked.state_dict(), "average": average.weights}
    optimizers = [optimizer.state_dict() for optimizer in chosen]
    save(work_folder() / CHECKPOINT, state | {"optimizers": optimizers, "step": step})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    parser.add_argument("--peak", type=float, default=Schedule.peak, help="of the learning rate")
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal, peak=given.peak))
