"""Compiled blocks: eager ones serve until they are there, and no size makes torch compile again.

Traced without inductor, which a CPU's compiler would take minutes for: what it does with a GPU is in tests/gpu.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from safelight.engine import compiled_blocks
from safelight.engine.compiled_blocks import CompiledBlocks, check_compile
from safelight.engine.engine import prepare_engine
from safelight.engine.families.flux1.latents import make_image_ids
from safelight.errors import ConfigurationError
from safelight.settings import EngineOptions

ON = EngineOptions(compile="on")
TRACED = partial(torch.compile, backend="eager")


@pytest.fixture
def transformer(tiny_flux_folder: Path) -> Any:
    return FluxTransformer2DModel.from_pretrained(tiny_flux_folder / "transformer").eval()


@torch.inference_mode()
def predict(transformer: Any, rows: int = 1, side: int = 4, tokens: int = 8) -> Tensor:
    config, draw = transformer.config, torch.Generator().manual_seed(0)
    made: Tensor = transformer(
        hidden_states=torch.randn(rows, (side // 2) ** 2, config.in_channels, generator=draw),
        timestep=torch.full((rows,), 0.5),
        pooled_projections=torch.randn(rows, config.pooled_projection_dim, generator=draw),
        encoder_hidden_states=torch.randn(rows, tokens, config.joint_attention_dim, generator=draw),
        txt_ids=torch.zeros(tokens, 3),
        img_ids=make_image_ids(side, side),
        return_dict=False,
    )[0]
    return made


def compiled(transformer: Any, compile: Any = TRACED) -> CompiledBlocks:
    blocks = CompiledBlocks(transformer, compile=compile)
    with blocks.in_use(is_allowed=True):
        predict(transformer, rows=1, side=8)
    assert blocks.thread is not None
    blocks.thread.join(timeout=300)
    return blocks


def test_sizes_of_all_kinds_use_what_was_compiled_once(transformer: Any) -> None:
    expected = [predict(transformer, rows, side) for rows in (1, 2, 3, 5) for side in (4, 6, 8, 10)]
    torch._dynamo.reset()
    blocks = compiled(transformer)
    torch._dynamo.utils.counters.clear()

    with blocks.in_use(is_allowed=True):
        made = [predict(transformer, rows, side) for rows in (1, 2, 3, 5) for side in (4, 6, 8, 10)]

    assert blocks.is_ready
    assert torch._dynamo.utils.counters["frames"] == {}
    for own, other in zip(made, expected, strict=True):
        torch.testing.assert_close(own, other)


def test_eager_blocks_serve_before_and_where_compiled_ones_may_not(transformer: Any) -> None:
    calls = list[str]()

    def noted(forward: Any, **_: Any) -> Any:
        def call(block: Any, **given: Any) -> Any:
            calls.append(type(block).__name__)
            return forward(block, **given)

        return call

    blocks = compiled(transformer, noted)
    before = len(calls)
    with blocks.in_use(is_allowed=False):
        predict(transformer)
    assert len(calls) == before

    with blocks.in_use(is_allowed=True):
        predict(transformer)

    assert len(calls) == before + len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    predict(transformer)
    assert "forward" not in vars(transformer.transformer_blocks[0])


def test_what_cannot_be_compiled_goes_on_as_it_is(transformer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_forward: Any, **_: Any) -> Any:
        raise RuntimeError("no compiler\nand a long story")

    blocks = compiled(transformer, broken)

    assert not blocks.is_ready
    assert "steps go on as they are: no compiler" in caplog.text
    with blocks.in_use(is_allowed=True):
        predict(transformer)


def test_a_cpu_is_told_why_nothing_is_compiled_there(tiny_flux_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="compile on is for CUDA, and the model runs on cpu"):
        prepare_engine(tiny_flux_folder, EngineOptions(device="cpu", compile="on"))


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_auto_and_off_compile_nothing(compile: str) -> None:
    check_compile(EngineOptions.model_validate({"compile": compile}), torch.device("cpu"), "layers")


def test_a_transformer_that_comes_and_goes_is_not_compiled() -> None:
    with pytest.raises(ConfigurationError, match="offload is layers"):
        check_compile(ON, torch.device("cuda"), "layers")


def test_a_machine_without_a_compiler_is_told_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_blocks, "_COMPILERS", ("no-such-compiler",))

    with pytest.raises(ConfigurationError, match="needs a C compiler, and there is none; install gcc"):
        check_compile(ON, torch.device("cuda"), "none")
