"""The last blocks of the transformer, taught patch by patch: what each part of each thing looks like.

Which thing a patch shows, and which part of it, the blocks before have found; how that looks is a matter of memory,
for which a patch needs no other. So the last blocks begin without attention, as plain layers, and learn from the
states that the blocks before leave of many patches. Then the flow goes on with all of it.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import linear

from training.sprite.data.captions import SILENCE, caption
from training.sprite.networks import network
from training.sprite.networks.checkpoints import load, log, save
from training.sprite.networks.devices import device, mixed_precision
from training.sprite.networks.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.networks.text import TextEncoders, load_text_encoders
from training.sprite.paths import work_folder
from training.sprite.stages.batches import WHOLE
from training.sprite.stages.flow import sigmas
from training.sprite.stages.shards import Shard, available_shards, open_shard


@dataclass(frozen=True)
class Schedule:
    steps: int = 2000
    anneal: int = 2000
    warm_up: int = 50
    batch: int = 1024  # patches
    peak: float = 4e-3
    muon_strength: float = 0.6
    draws: int = 2  # of noise and caption, for each scene
    rows: int = 32  # pictures at a time, while states are gathered
    elsewhere: int = 12  # patches of each picture that show no thing
    silence_share: float = 0.04
    first_step_share: float = 0.7
    seed: int = 6


@dataclass(frozen=True, slots=True)
class States:
    """Of each patch: what the blocks before say, its picture's conditioning, and the velocity that is right."""

    hidden: Tensor  # (patches, width)
    pictures: Tensor  # (patches,), rows of `conditioning`
    conditioning: Tensor  # (pictures, width)
    velocity: Tensor  # (patches, 128)


class LastBlocks(nn.Module):
    """The transformer's last blocks and its output, for patches that see no others."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.blocks = transformer.single_transformer_blocks[network.FIRST_BLOCKS :]
        self.norm_out, self.proj_out = transformer.norm_out, transformer.proj_out

    def forward(self, hidden: Tensor, conditioning: Tensor) -> Tensor:
        hidden = hidden[:, None]
        for block in self.blocks:
            hidden = hidden + _without_attention(block, hidden, conditioning)
        answer: Tensor = self.proj_out(self.norm_out(hidden, conditioning))
        return answer[:, 0]


def _without_attention(block: FluxSingleTransformerBlock, hidden: Tensor, conditioning: Tensor) -> Tensor:
    normed, gate = block.norm(hidden, emb=conditioning)
    inner = block.act_mlp(block.proj_mlp(normed))
    answer: Tensor = gate[:, None] * linear(inner, block.proj_out.weight[:, hidden.shape[-1] :], block.proj_out.bias)
    return answer


def train(schedule: Schedule) -> None:
    """Adds the last blocks to the flow's checkpoint, once: when they have attention, a patch needs the others."""
    checkpoint = load(work_folder() / network.CHECKPOINT)
    if f"single_transformer_blocks.{network.FIRST_BLOCKS}.proj_out.weight" in checkpoint["average"]:
        log("patches", stage_is="kept")
        return
    torch.manual_seed(schedule.seed)
    transformer = network.new_transformer()
    network.load_grown(transformer, checkpoint["average"])
    blocks = transformer.single_transformer_blocks
    transformer.single_transformer_blocks = blocks[: network.FIRST_BLOCKS]
    states = gathered(transformer, schedule)
    transformer.single_transformer_blocks = blocks
    last = LastBlocks(transformer).train()
    chosen = optimizers(last, schedule.peak, weight_decay=0.01, strength=schedule.muon_strength)
    losses, started = [], time.time()
    for step in range(schedule.steps):
        set_learning_rate(chosen, learning_rate(schedule, step))
        losses.append(_train_step(last, chosen, states, schedule.batch))
        if (step + 1) % 50 == 0:
            loss, seconds = round(float(np.mean(losses[-50:])), 4), round(time.time() - started)
            log("patches", step=step + 1, loss=loss, seconds=seconds)
    weights = transformer.state_dict()
    kept = {name: checkpoint[name] for name in ("asked", "step") if name in checkpoint}
    save(work_folder() / network.CHECKPOINT, kept | {"weights": weights, "average": weights})


def _train_step(last: LastBlocks, chosen: list[torch.optim.Optimizer], states: States, batch: int) -> float:
    picked = torch.randint(len(states.hidden), (batch,))
    hidden, velocity = states.hidden[picked].to(device()).float(), states.velocity[picked].to(device()).float()
    conditioning = states.conditioning[states.pictures[picked]].to(device())
    with mixed_precision():
        answer = last(hidden, conditioning)
    loss = (answer.float() - velocity).square().mean()
    descend(loss, last, chosen)
    return loss.item()


@torch.no_grad()
def gathered(transformer: FluxTransformer2DModel, schedule: Schedule) -> States:
    """What the blocks before say of the patches of all shards of 256x256, with noise and captions drawn anew."""
    encoders, random = load_text_encoders(), Random(f"patches {schedule.seed}")
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    pictures = 0
    for shard, rows in _portions(schedule):
        hidden, conditioning, velocity = _states(transformer, encoders, shard, rows, random, schedule)
        is_picked = _picked(torch.from_numpy(shard.layouts[rows][..., 0]) > 0, schedule.elsewhere)
        numbers = pictures + torch.arange(len(hidden))[:, None].expand_as(is_picked)
        found.append((hidden[is_picked].half(), numbers[is_picked], conditioning, velocity[is_picked].half()))
        pictures += len(hidden)
        if pictures % 2048 == 0:
            log("patches", pictures=pictures)
    return States(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _portions(schedule: Schedule) -> Iterator[tuple[Shard, slice]]:
    for number in available_shards() * schedule.draws:
        shard = open_shard(number)
        if shard.grid == WHOLE:
            for start in range(0, len(shard.latents), schedule.rows):
                yield shard, slice(start, min(start + schedule.rows, len(shard.latents)))


def _states(
    transformer: FluxTransformer2DModel, encoders: TextEncoders, shard: Shard, rows: slice, random: Random,
    schedule: Schedule,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    latents = torch.from_numpy(shard.latents[rows].astype(np.float32)).to(device())
    noise = torch.randn_like(latents)
    said = [
        SILENCE if random.random() < schedule.silence_share else caption(scene, random) for scene in shard.scenes[rows]
    ]
    is_open = torch.tensor([words.is_open for words in said], device=device())
    sigma = sigmas(is_open, schedule.first_step_share)
    noisy = torch.lerp(latents, noise, sigma[:, None, None])
    texts = [words.text for words in said]
    kept: list[Tensor] = []
    block = transformer.single_transformer_blocks[network.FIRST_BLOCKS - 1]
    hooks = [
        block.register_forward_hook(lambda _block, _given, answer: kept.append(answer[1])),
        transformer.time_text_embed.register_forward_hook(lambda _embed, _given, answer: kept.append(answer)),
    ]
    with sdpa_kernel(network.ATTENTION), mixed_precision():
        network.velocity(transformer, noisy, sigma, network.encoded_text(encoders, texts), shard.grid)
    for hook in hooks:
        hook.remove()
    conditioning, hidden = kept
    return hidden.float().cpu(), conditioning.float().cpu(), (noise - latents).cpu()


def _picked(shows_thing: Tensor, elsewhere: int) -> Tensor:
    """The patches that show a thing, and some of the others."""
    return shows_thing | (torch.rand(shows_thing.shape) < elsewhere / shows_thing.shape[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--draws", type=int, default=Schedule.draws)
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.steps, draws=given.draws))
