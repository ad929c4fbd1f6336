"""diffusers' own FluxPipeline, and one call of it: what stands behind every peer."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline

from benchmarks.step_batching import SPRITE

SEQUENCE_LENGTH = 32
"""What sprite reads of a prompt."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request in Hugging Face's form."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int


def read_request(body: dict[str, Any]) -> Asked:
    given = body.get("parameters") or {}
    return Asked(
        body["inputs"],
        given.get("width", 256),
        given.get("height", 256),
        given.get("num_inference_steps", 4),
        given.get("seed", 0),
    )


def load_pipeline(folder: Path, dtype: str) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(pipeline: FluxPipeline, requests: Sequence[Asked]) -> list[bytes]:
    """PNG files. One call for all, which must have the size and the steps of the first."""
    first = requests[0]
    made = pipeline(
        [each.prompt for each in requests],
        width=first.width,
        height=first.height,
        num_inference_steps=first.steps,
        guidance_scale=0.0,
        max_sequence_length=SEQUENCE_LENGTH,
        generator=[torch.Generator().manual_seed(each.seed) for each in requests],
    )
    return [_png(image) for image in made.images]


def parse_options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, default=SPRITE)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
