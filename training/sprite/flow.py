"""The flow: a small FLUX transformer trained on encoded scenes to point from noise to picture.

Conventions are FluxPipeline's: packed latents, timestep = sigma, velocity = noise - picture.
Weights are kept in fp32; matrices are multiplied in bf16.
"""

import argparse
import time
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.sprite.captions import caption
from training.sprite.checkpoints import Average, load, log, resume_optimizers, save, stop_request
from training.sprite.devices import device, mixed_precision
from training.sprite.optimizer import learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder
from training.sprite.shards import Shard, available_shards, encode_shards, open_shard
from training.sprite.text import CLIP_WIDTH, T5_WIDTH, TextEncoders, load_text_encoders
from training.sprite.tokens import TEXT_LENGTH

CHECKPOINT = "flow.pt"
# On a CPU, at this size, the plain attention's backward pass is several times faster than the fused one.
ATTENTION = (
    [SDPBackend.MATH] if device().type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
)


@dataclass(frozen=True)
class Schedule:
    steps: int = 16_000
    anneal: int = 1500
    warm_up: int = 100
    batch: int = 64
    peak: float = 2e-3
    muon_strength: float = 0.6
    silence_share: float = 0.1
    one_thing_steps: int = 5000  # until then most rows show one thing, or its name goes unlearnt for long
    one_thing_share: float = 0.85
    steps_per_new_shard: int = 240
    most_shards: int = 400
    compiles: bool = True  # only the pass for 256x256: others would each take minutes to compile
    seed: int = 3


@dataclass(frozen=True, slots=True)
class Batch:
    latents: Tensor
    texts: list[str]
    grid: tuple[int, int]


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
    hidden, pooled = text
    answer: Tensor = transformer(
        hidden_states=noisy, timestep=sigma.to(noisy.dtype), encoder_hidden_states=hidden, pooled_projections=pooled,
        img_ids=image_ids(grid), txt_ids=torch.zeros(TEXT_LENGTH, 3, device=noisy.device), return_dict=False,
    )[0]  # fmt: skip
    return answer


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
    chosen = optimizers(transformer, schedule.peak, weight_decay=0.01, strength=schedule.muon_strength)
    average = Average.of(transformer, 0.9995)
    step = first = _resume(transformer, chosen, average)
    compiled = torch.compile(transformer) if schedule.compiles else transformer
    encoders = load_text_encoders()
    started, losses = time.time(), []
    stop = stop_request()
    while step < schedule.steps and not stop.is_set():
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        set_learning_rate(chosen, _rate(schedule, step))
        batch = _batch(schedule, step)
        losses.append(_train_step(compiled if batch.grid == (8, 8) else transformer, encoders, chosen, batch))
        average.update(transformer, step)
        step += 1
        if step % 50 == 0:
            speed = (step - first) * schedule.batch / (time.time() - started)
            log("flow", step=step, loss=round(float(np.mean(losses[-50:])), 4), samples_per_s=round(speed, 2))
        if step % 100 == 0 or step == schedule.steps:
            _save(transformer, chosen, average, step)
        if step % schedule.steps_per_new_shard == 0:
            _add_shard(schedule.most_shards)
    _save(transformer, chosen, average, step)


def _train_step(
    transformer: nn.Module, encoders: TextEncoders, chosen: list[torch.optim.Optimizer], batch: Batch
) -> float:
    noise = torch.randn_like(batch.latents)
    sigma = torch.randn(len(noise), device=noise.device).sigmoid()
    return descend(transformer, chosen, noise, sigma, batch, encoded_text(encoders, batch.texts))


def descend(
    transformer: nn.Module, chosen: list[torch.optim.Optimizer], noise: Tensor, sigma: Tensor, batch: Batch,
    text: tuple[Tensor, Tensor],
) -> float:  # fmt: skip
    """One optimizer step towards the velocity from each picture to its noise; the loss before it."""
    noisy = torch.lerp(batch.latents, noise, sigma[:, None, None])
    with sdpa_kernel(ATTENTION), mixed_precision():
        answer = velocity(transformer, noisy, sigma, text, batch.grid)
    loss = (answer.float() - (noise - batch.latents)).square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
    for optimizer in chosen:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _batch(schedule: Schedule, step: int) -> Batch:
    """Rows of shards of one size: the size of a shard drawn by chance, and the shards of that size."""
    random = Random(f"flow {schedule.seed} {step}")
    shards = [open_shard(number) for number in available_shards()]
    size = random.choice(shards).grid
    fitting = [shard for shard in shards if shard.grid == size]
    rows = [_row(random.choice(fitting), random, schedule, step) for _ in range(schedule.batch)]
    latents = torch.from_numpy(np.stack([latents for latents, _ in rows])).to(device()).float()
    return Batch(latents, [text for _, text in rows], size)


def _row(shard: Shard, random: Random, schedule: Schedule, step: int) -> tuple[np.ndarray, str]:
    is_single = step < schedule.one_thing_steps and random.random() < schedule.one_thing_share
    index = random.choice(shard.singles) if is_single else random.randrange(len(shard.latents))
    text = "" if random.random() < schedule.silence_share else caption(shard.scenes[index], random).text
    return shard.latents[index], text


def _add_shard(most: int) -> None:
    have = len(available_shards())
    if have < most:
        encode_shards(range(have + 1))


def _rate(schedule: Schedule, step: int) -> float:
    return learning_rate(
        step, peak=schedule.peak, warm_up=schedule.warm_up, total=schedule.steps, anneal=schedule.anneal
    )


def _resume(transformer: nn.Module, chosen: list[torch.optim.Optimizer], average: Average) -> int:
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0
    state = load(path)
    transformer.load_state_dict(state["weights"])
    average.weights = state["average"]
    resume_optimizers(chosen, state)
    return int(state["step"])


def _save(transformer: nn.Module, chosen: list[torch.optim.Optimizer], average: Average, step: int) -> None:
    state = {"weights": transformer.state_dict(), "average": average.weights, "step": step}
    save(work_folder() / CHECKPOINT, state | {"optimizers": [optimizer.state_dict() for optimizer in chosen]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal))
