"""Starts a fresh work folder from the shipped package folder, where no checkpoints are at hand.

The optimizers' state is not shipped, so training goes on from the same weights with fresh optimizers.
"""

import shutil

import torch
from diffusers import AutoencoderTiny, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextModel, T5EncoderModel

from training.sprite.networks import autoencoder, network, text
from training.sprite.networks.checkpoints import save
from training.sprite.paths import PACKAGE_FOLDER, work_folder
from training.sprite.stages import flow
from training.sprite.stages.shards import Normalisation, is_normalised, save_normalisation


def restore() -> None:
    """Checkpoints that are there already are left alone."""
    _restore_tokenizers()
    _restore_autoencoder()
    _restore_text()
    _restore_flow()


def _restore_tokenizers() -> None:
    for short, name in (("clip", "tokenizer"), ("t5", "tokenizer_2")):
        folder = work_folder() / "tokenizers" / short
        if not folder.exists():
            shutil.copytree(PACKAGE_FOLDER / name, folder)


def _restore_autoencoder() -> None:
    shipped = AutoencoderTiny.from_pretrained(PACKAGE_FOLDER / "vae", torch_dtype=torch.float32)
    _restore_weights(shipped, autoencoder.CHECKPOINT, autoencoder.Schedule().steps)
    if not is_normalised():
        save_normalisation(Normalisation(shipped.config.scaling_factor, shipped.config.shift_factor))


def _restore_text() -> None:
    path = work_folder() / text.CHECKPOINT
    if not path.exists():
        encoders = text.TextEncoders()
        encoders.t5 = T5EncoderModel.from_pretrained(PACKAGE_FOLDER / "text_encoder_2", dtype=torch.float32)
        encoders.clip = CLIPTextModel.from_pretrained(PACKAGE_FOLDER / "text_encoder", dtype=torch.float32)
        save(path, {"encoders": encoders.state_dict(), "step": text.Schedule().steps})


def _restore_flow() -> None:
    shipped = FluxTransformer2DModel.from_pretrained(PACKAGE_FOLDER / "transformer", torch_dtype=torch.float32)
    _restore_weights(shipped, network.CHECKPOINT, flow.FIRST_STEPS)


def _restore_weights(shipped: nn.Module, checkpoint: str, step: int) -> None:
    path = work_folder() / checkpoint
    if not path.exists():
        weights = shipped.state_dict()
        save(path, {"weights": weights, "average": weights, "step": step})


if __name__ == "__main__":
    restore()
