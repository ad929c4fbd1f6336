"""A weight that is kept in fewer bytes multiplies as what it stands for, and no row sees another one."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from safelight.engine.weights.stored_linear import BLOCK_ROWS, StoredLinear, StoredWeight
from safelight.engine.weights.stored_weights import (
    CastWeight,
    GgufWeight,
    Nf4Weight,
    ScaledWeight,
    quantize_float8,
    quantize_int8,
    quantize_nf4,
)

IN_FEATURES = 3072
OUT_FEATURES = 2 * BLOCK_ROWS + 44
"""More than one block of rows, and the last one is not full."""


def _gguf(name: str) -> Callable[[Tensor], StoredWeight]:
    quant_type = gguf.GGMLQuantizationType[name]
    return lambda weight: GgufWeight(torch.from_numpy(gguf.quantize(weight.numpy(), quant_type)), quant_type)


STORED: dict[str, tuple[Callable[[Tensor], StoredWeight], float]] = {
    "bf16": (lambda weight: CastWeight(weight.bfloat16()), 0.003),
    "fp16": (lambda weight: CastWeight(weight.half()), 0.0005),
    "plain fp8": (lambda weight: CastWeight((weight * 64).to(torch.float8_e4m3fn)), 0.05),
    "int8": (lambda weight: ScaledWeight(*quantize_int8(weight)), 0.01),
    "fp8": (lambda weight: ScaledWeight(*quantize_float8(weight)), 0.04),
    "nf4": (lambda weight: Nf4Weight(*quantize_nf4(weight)), 0.1),
    "Q8_0": (_gguf("Q8_0"), 0.01),
    "Q4_0": (_gguf("Q4_0"), 0.1),
}
"""How each stores a weight, and how far off its products may be."""


@pytest.fixture(scope="module")
def weight() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(OUT_FEATURES, IN_FEATURES, generator=generator) * 0.02


@pytest.fixture(params=STORED)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _layer(kind: str, weight: Tensor, bias: Tensor | None = None) -> StoredLinear:
    return StoredLinear(STORED[kind][0](weight.clone()), bias)


def test_its_products_are_those_of_the_weight_within_its_precision(kind: str, weight: Tensor) -> None:
    bias, tokens = _rows(OUT_FEATURES), _rows(2, 20, IN_FEATURES)
    scale = 64 if kind == "plain fp8" else 1

    products = _layer(kind, weight, bias)(tokens)

    expected = nn.functional.linear(tokens, weight * scale, bias)
    assert ((products - expected).norm() / expected.norm()).item() < STORED[kind][1]


def test_blocks_of_rows_make_the_whole_weight(kind: str, weight: Tensor) -> None:
    stored = STORED[kind][0](weight.clone())

    blocks = [
        stored.rows(start, min(start + 100, OUT_FEATURES), torch.float32) for start in range(0, OUT_FEATURES, 100)
    ]

    assert torch.equal(torch.cat(blocks), stored.rows(0, OUT_FEATURES, torch.float32))
    assert (stored.out_features, stored.in_features) == weight.shape


@pytest.mark.parametrize("num_tokens", [1, 3, 16, 40])
def test_an_image_is_the_one_alone_beside_one_that_is_twenty_times_louder(
    kind: str, weight: Tensor, num_tokens: int
) -> None:
    layer = _layer(kind, weight)
    images = _rows(4, num_tokens, IN_FEATURES)
    images[1] *= 20

    for _ in range(2):  # the first time asks the machine whether the images may be multiplied together
        together = layer(images)
        for image, alone in zip(together, images, strict=True):
            assert torch.equal(image, layer(alone[None])[0])


def test_one_row_for_each_image_is_the_row_alone(kind: str, weight: Tensor) -> None:
    layer, rows = _layer(kind, weight), _rows(5, IN_FEATURES)

    together = layer(rows)

    assert torch.equal(together[3:4], layer(rows[3:4]))


def test_every_number_of_fp8_is_read_as_torch_reads_it() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    every = every[(every & 0x7F) != 0x7F].view(torch.float8_e4m3fn)  # without its two NaNs

    rows = CastWeight(every[None]).rows(0, 1, torch.float32)

    assert torch.equal(rows[0], every.to(torch.float32))


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_float8, quantize_nf4])
def test_a_weight_with_rows_of_zeros_and_of_huge_numbers_has_no_nan(
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    weight = torch.zeros(3, 64)
    weight[1], weight[2, 5] = 1e4, -3e4
    store = Nf4Weight if quantize is quantize_nf4 else ScaledWeight

    rows = store(*quantize(weight)).rows(0, 3, torch.float32)

    assert torch.allclose(rows, weight, rtol=0.01)


def test_nf4_is_half_a_byte_and_a_scale_for_each_64() -> None:
    pairs, scales = quantize_nf4(torch.randn(10, 640, generator=torch.Generator().manual_seed(0)))

    assert pairs.nbytes + scales.nbytes == 10 * 640 // 2 + 10 * 10 * 2


def test_the_levels_of_nf4_stay_what_they_are() -> None:
    """The format is the same as bitsandbytes': a weight made of the levels comes back bit for bit."""
    levels = Nf4Weight(torch.from_numpy(np.arange(0, 256, 17, dtype=np.uint8))[None], torch.ones(1, 1).half())
    numbers = levels.rows(0, 1, torch.float32)

    again = Nf4Weight(*quantize_nf4(numbers)).rows(0, 1, torch.float32)

    assert torch.equal(numbers, again)
    assert numbers[0, 0] == -1.0
    assert numbers[0, 14:16].tolist() == [0.0, 0.0]
    assert numbers[0, -1] == 1.0
