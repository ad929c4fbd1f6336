"""The ways in which a weight is stored, and how its rows come back. Arithmetic on rows only: none knows a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions
from gguf import GGMLQuantizationType
from torch import Tensor, nn

INT8_MAX = 127
FLOAT8_MAX = 448.0  # of float8_e4m3fn
NF4_BLOCK = 64
NF4_LEVELS = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip


class _Rows(nn.Module):
    """Buffers with a row for each row of the weight."""

    def __init__(self, in_features: int, **buffers: Tensor) -> None:
        super().__init__()
        self.in_features = in_features
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        (self.out_features,) = {len(buffer) for buffer in buffers.values()}


class CastWeight(_Rows):
    """In another dtype than it is multiplied in: bf16 on a CPU without bf16 arithmetic, or plain fp8."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        """`values`: (out_features, in_features)."""
        super().__init__(values.shape[1], values=values)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        numbers, factor = _numbers(self.values[start:stop], dtype)
        return numbers if factor == 1 else numbers.mul_(factor)


class ScaledWeight(_Rows):
    """int8 or fp8 numbers, with a scale for each row."""

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        """`values`: (out_features, in_features); `scales`: (out_features, 1), fp32."""
        super().__init__(values.shape[1], values=values, scales=scales)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        numbers, factor = _numbers(self.values[start:stop], dtype)
        return numbers.mul_((self.scales[start:stop] * factor).to(dtype))


class Nf4Weight(_Rows):
    """4-bit NormalFloat: 64 neighbours share a scale, and are sixteen quantiles of a normal distribution.

    QLoRA, https://arxiv.org/abs/2305.14314, appendix E; without its second quantization, of the scales.
    """

    pairs: Tensor
    scales: Tensor

    def __init__(self, pairs: Tensor, scales: Tensor) -> None:
        """`pairs`: uint8 (out_features, in_features / 2), the first number in the high bits.

        `scales`: fp16 or fp32 (out_features, blocks in a row).
        """
        super().__init__(pairs.shape[1] * 2, pairs=pairs, scales=scales)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        pairs = self.pairs[start:stop]
        numbers = _nf4_table(dtype, pairs.device).index_select(0, pairs.reshape(-1).int())
        numbers = numbers.view(dtype).view(*self.scales[start:stop].shape, -1)
        return numbers.mul_(self.scales[start:stop, :, None].to(dtype)).view(stop - start, -1)


@cache
def _nf4_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Byte -> the two numbers that it holds, as one integer: a CPU looks one up twenty times as fast as two."""
    pairs = torch.cartesian_prod(NF4_LEVELS, NF4_LEVELS).to(device, dtype)
    return pairs.view(torch.int64 if dtype.itemsize == 4 else torch.int32).reshape(-1)


class GgufWeight(_Rows):
    """Blocks of a GGUF file, each with scales of its own: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

    blocks: Tensor

    def __init__(self, blocks: Tensor, quant_type: GGMLQuantizationType) -> None:
        """`blocks`: uint8 (out_features, bytes of a row)."""
        self._block_size, self._block_bytes = GGML_QUANT_SIZES[quant_type]
        super().__init__(blocks.shape[1] // self._block_bytes * self._block_size, blocks=blocks)
        self._dequantize: Callable[[Tensor, int, int, torch.dtype], Tensor] = dequantize_functions[quant_type]

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        blocks = self.blocks[start:stop].reshape(-1, self._block_bytes)
        return self._dequantize(blocks, self._block_size, self._block_bytes, dtype).reshape(stop - start, -1).to(dtype)


def _numbers(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """`values` in another dtype, divided by a factor.

    fp8 on a CPU comes back ten times as fast as by torch, which looks at each number by itself. An e4m3 is an fp16 with
    an exponent shifted by 8, once its sign stands where fp16 has it: so 2**8 makes up for it. (0x7f and 0xff, its NaNs,
    would be 480: a file that has them is refused when it is loaded.)
    """
    if values.dtype != torch.float8_e4m3fn or values.device.type != "cpu":
        return values.to(dtype), 1.0
    bits = (values.view(torch.int8).to(torch.int16) << 7) & ~0x4000
    return bits.view(torch.float16).to(dtype), 256.0


Quantized = tuple[Tensor, Tensor]
"""The numbers and the scales of a `ScaledWeight` or an `Nf4Weight`. No row depends on another."""


def quantize_int8(weight: Tensor) -> Quantized:
    """Symmetric, by row: the greatest magnitude of a row is 127."""
    rows = weight.float()
    scales = _row_scales(rows, INT8_MAX)
    return (rows / scales).round_().to(torch.int8), scales


def quantize_float8(weight: Tensor) -> Quantized:
    """float8_e4m3fn, by row: the greatest magnitude of a row is 448."""
    rows = weight.float()
    scales = _row_scales(rows, FLOAT8_MAX)
    return (rows / scales).to(torch.float8_e4m3fn), scales


def quantize_nf4(weight: Tensor) -> Quantized:
    """Each block's greatest magnitude is 1. Rows of no multiple of 64 have shorter blocks; their length is even."""
    blocks = weight.float().view(len(weight), -1, math.gcd(weight.shape[1], NF4_BLOCK))
    scales = blocks.abs().amax(dim=2).half()
    shares = blocks / torch.where(scales > 0, scales, torch.ones_like(scales)).float()[:, :, None]
    between = (NF4_LEVELS[1:] + NF4_LEVELS[:-1]) / 2
    levels = torch.bucketize(shares, between.to(shares.device), out_int32=True).view(len(weight), -1, 2)
    return (levels[..., 0] * 16 + levels[..., 1]).to(torch.uint8), scales


def _row_scales(rows: Tensor, greatest: float) -> Tensor:
    """(out_features, 1); a row of zeros has scale 1."""
    scales = rows.abs().amax(dim=1, keepdim=True) / greatest
    return torch.where(scales > 0, scales, torch.ones_like(scales))
