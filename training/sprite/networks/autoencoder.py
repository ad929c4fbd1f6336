"""The autoencoder: 256x256 pixels to 16x16 latents of 32 channels and back, trained on rendered scenes."""

import argparse
import time
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from training.sprite.data.artwork import Pixels
from training.sprite.data.scenes import draw, random_scene
from training.sprite.networks.checkpoints import Average, load, log, resume_optimizers, save, stoppable
from training.sprite.networks.devices import device, mixed_precision
from training.sprite.networks.network import CHECKPOINT as FLOW
from training.sprite.networks.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder

CHECKPOINT = "autoencoder.pt"


@dataclass(frozen=True)
class Schedule:
    steps: int = 9800
    anneal: int = 4000
    whole_pictures: int = 200  # the last steps see whole 256 px pictures instead of crops
    warm_up: int = 100
    batch: int = 16
    peak: float = 3e-3
    noise: float = 0.1  # the most that is added to the latents, so that the decoder forgives the flow its slips
    decoder_only: bool = False  # once the flow has begun, the latents must stay what they are
    checked: int = 32  # held-out scenes, with each checkpoint
    seed: int = 1


def new_autoencoder(channels: int = 48) -> AutoencoderTiny:
    widths = (channels,) * 5
    return AutoencoderTiny(
        latent_channels=32,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(0, 1, 2, 3, 4),
        num_decoder_blocks=(4, 4, 3, 2, 0),
    ).to(device(), memory_format=torch.channels_last)


def load_autoencoder() -> AutoencoderTiny:
    state = load(work_folder() / CHECKPOINT)
    autoencoder = new_autoencoder()
    autoencoder.load_state_dict(state["average"])
    return autoencoder.eval()


def train(schedule: Schedule) -> None:
    if not schedule.decoder_only and (work_folder() / FLOW).exists():
        raise SystemExit(
            "the flow that has begun is bound to its encoder: add --decoder-only, or begin in another folder"
        )
    torch.manual_seed(schedule.seed)
    autoencoder = new_autoencoder()
    autoencoder.encoder.requires_grad_(not schedule.decoder_only)
    chosen = optimizers(autoencoder, schedule.peak, weight_decay=0.01)
    average = Average.of(autoencoder, 0.995)
    step = _resume(autoencoder, chosen, average, schedule.decoder_only)
    started, seen = time.time(), 0
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            random = Random(f"autoencoder {schedule.seed} {step}")
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            set_learning_rate(chosen, learning_rate(schedule, step))
            is_whole = schedule.steps - step <= schedule.whole_pictures
            loss = _train_step(autoencoder, chosen, _batch(random, schedule.batch, is_whole), schedule.noise)
            average.update(autoencoder, step)
            step, seen = step + 1, seen + schedule.batch
            if step % 25 == 0:
                log(
                    "autoencoder", step=step, loss=round(loss, 5), images_per_s=round(seen / (time.time() - started), 2)
                )
            if step % 200 == 0 or step == schedule.steps or stop.is_set():
                _save(autoencoder, chosen, average, step, schedule.decoder_only)
                log("autoencoder", step=step, psnr=round(held_out_psnr(load_autoencoder(), schedule.checked), 3))


def held_out_psnr(autoencoder: AutoencoderTiny, count: int, side: int = 256) -> float:
    """Mean PSNR in dB over scenes drawn from a seed that training never uses."""
    random = Random("held-out autoencoder scenes")
    pictures = [draw(random_scene(random), side, side) for _ in range(count)]
    values = [_psnr(autoencoder, to_tensor(pictures[i : i + 8])) for i in range(0, count, 8)]
    return float(torch.cat(values).mean())


def to_tensor(pictures: list[Pixels]) -> Tensor:
    """Pictures as a batch of values from -1 to 1, channels last in memory."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return batch.to(device()).float().div(127.5).sub(1)


@torch.no_grad()
def _psnr(autoencoder: AutoencoderTiny, pictures: Tensor) -> Tensor:
    with mixed_precision():
        restored = autoencoder.decoder(autoencoder.encoder(pictures)).float().clamp(-1, 1)
    error = ((restored - pictures) / 2).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def _batch(random: Random, count: int, is_whole: bool) -> Tensor:
    if is_whole:
        return to_tensor([draw(random_scene(random), 256, 256) for _ in range(count // 4)])
    pictures = [draw(random_scene(random), 256, 256) for _ in range(count // 2)]
    return to_tensor([_crop(picture, random) for picture in pictures for _ in range(2)])


def _crop(picture: Pixels, random: Random) -> Pixels:
    x, y = random.randint(0, 128), random.randint(0, 128)
    return picture[y : y + 128, x : x + 128]


def _train_step(
    autoencoder: AutoencoderTiny, chosen: list[torch.optim.Optimizer], pictures: Tensor, noise: float
) -> float:
    with mixed_precision():
        latents = autoencoder.encoder(pictures)
        strength = torch.rand(len(latents), 1, 1, 1, device=latents.device) * noise
        restored = autoencoder.decoder(latents + strength * torch.randn_like(latents))
    error = restored.float() - pictures
    loss = error.abs().mean() + 10 * error.square().mean() + 0.01 * _distance_from_normal(latents.float())
    descend(loss, autoencoder, chosen)
    return error.square().mean().item()


def _distance_from_normal(latents: Tensor) -> Tensor:
    """Keeps every channel near mean zero and deviation one, which is what the flow starts from."""
    values = latents.transpose(0, 1).flatten(1)
    return values.mean(1).square().mean() + (values.std(1) + 1e-4).log().square().mean()


def _resume(autoencoder: nn.Module, chosen: list[torch.optim.Optimizer], average: Average, decoder_only: bool) -> int:
    path = work_folder() / CHECKPOINT
    if not path.exists():
        return 0
    state = load(path)
    autoencoder.load_state_dict(state["average" if decoder_only else "weights"])
    average.weights = state["average"]
    if state.get("decoder_only", False) == decoder_only:
        resume_optimizers(chosen, state)
    return int(state["step"])


def _save(
    autoencoder: nn.Module, chosen: list[torch.optim.Optimizer], average: Average, step: int, decoder_only: bool
) -> None:
    state = {
        "weights": autoencoder.state_dict(),
        "average": average.weights,
        "optimizers": [optimizer.state_dict() for optimizer in chosen],
        "step": step,
        "decoder_only": decoder_only,
    }
    save(work_folder() / CHECKPOINT, state)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    parser.add_argument("--peak", type=float, default=Schedule.peak, help="lower where restored weights go on")
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder, and so the latents, alone")
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal, peak=given.peak, decoder_only=given.decoder_only))
