"""What is said of a large model's pace, before anybody waits for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from safelight.engine import pace
from safelight.engine.engine import Engine, load_engine
from safelight.engine.pace import estimate_picture_s
from safelight.model.catalog import FLUX_SCHNELL
from safelight.settings import EngineOptions

CPU = torch.device("cpu")


class CountedLinear(nn.Linear):
    """Counts the tokens that it is given."""

    tokens = 0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        CountedLinear.tokens += input.shape[1]
        return super().forward(input)


class Blocks(nn.Module):
    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CountedLinear(64, 64) for _ in range(num_blocks))


def test_a_small_model_is_not_timed_at_all(engine: Engine) -> None:
    CountedLinear.tokens = 0

    assert engine.picture_s is None
    assert estimate_picture_s(Blocks(3), FLUX_SCHNELL, device=CPU, dtype=torch.float32) is None
    assert CountedLinear.tokens == 0


def test_a_large_model_is_timed_by_one_block_of_it_with_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LARGE_BYTES", 0)
    CountedLinear.tokens = 0

    seconds = estimate_picture_s(Blocks(50), FLUX_SCHNELL, device=CPU, dtype=torch.float32)

    assert seconds is not None
    assert seconds > 0
    assert CountedLinear.tokens == 1 + 8 + 32


def test_the_estimate_grows_with_blocks_steps_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LARGE_BYTES", 0)
    monkeypatch.setattr(pace, "_time", lambda layers, num_tokens, dtype: 1.0 + 0.5 * num_tokens)
    spec = replace(
        FLUX_SCHNELL, default_width=160, default_height=160, max_sequence_length=20, default_num_inference_steps=3
    )

    seconds = estimate_picture_s(Blocks(2), spec, device=CPU, dtype=torch.float32)

    assert seconds == pytest.approx(2 * 3 * (1.0 + 0.5 * 120))


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_every_precision_is_timed_in_the_real_transformer(
    tiny_flux_folder: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    monkeypatch.setattr(pace, "LARGE_BYTES", 0)
    options = EngineOptions.model_validate({"device": "cpu", "quantization": quantization})

    seconds = load_engine(tiny_flux_folder, options).picture_s

    assert seconds is not None
    assert seconds > 0
