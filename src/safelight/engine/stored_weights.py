"""The ways in which a weight is stored, and how its rows come back. Arithmetic on rows only: none knows a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

INT8_MAX = 127
FLOAT8_MAX = 448.0  # of float8_e4m3fn


class CastWeight(nn.Module):
    """In another dtype than it is multiplied in: bf16 on a CPU without bf16 arithmetic, or plain fp8."""

    def __init__(self, values: Tensor) -> None:
        """`values`: (out_features, in_features)."""
        super().__init__()
        self.out_features, self.in_features = values.shape
        self.register_buffer("values", values)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return _as_numbers(self.values[start:stop], dtype)


class ScaledWeight(nn.Module):
    """int8 or fp8 numbers, with a scale for each row."""

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        """`values`: (out_features, in_features); `scales`: (out_features, 1), fp32."""
        super().__init__()
        self.out_features, self.in_features = values.shape
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return _as_numbers(self.values[start:stop], dtype).mul_(self.scales[start:stop].to(dtype))


class GgufWeight(nn.Module):
    """Blocks of a GGUF file, each with scales of its own: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

    def __init__(self, blocks: Tensor, quant_type: Any) -> None:
        """`blocks`: uint8 (out_features, bytes of a row); `quant_type`: a `gguf.GGMLQuantizationType`."""
        from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions

        super().__init__()
        self._block_size, self._block_bytes = GGML_QUANT_SIZES[quant_type]
        self._dequantize: Callable[[Tensor, int, int], Tensor] = dequantize_functions[quant_type]
        self.out_features, row_bytes = blocks.shape
        self.in_features = row_bytes // self._block_bytes * self._block_size
        self.register_buffer("blocks", blocks)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        blocks = self.blocks[start:stop].reshape(-1, self._block_bytes)
        return self._dequantize(blocks, self._block_size, self._block_bytes).reshape(stop - start, -1).to(dtype)


def _as_numbers(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values.to(dtype)`; of fp8 on a CPU ten times as fast as torch, which looks at each number by itself.

    An e4m3 is an fp16 with an exponent shifted by 8, once its sign stands where fp16 has it: so 2**8 makes up for it.
    (0x7f and 0xff, its NaNs, would be 480: a file that has them is refused when it is loaded.)
    """
    if values.dtype != torch.float8_e4m3fn or values.device.type != "cpu":
        return values.to(dtype)
    bits = (values.view(torch.int8).to(torch.int16) << 7) & ~0x4000
    return bits.view(torch.float16).to(dtype).mul_(256.0)


def quantize_int8(weight: Tensor) -> ScaledWeight:
    """Symmetric, by row: the greatest magnitude of a row is 127."""
    rows = weight.float()
    scales = _row_scales(rows, INT8_MAX)
    return ScaledWeight((rows / scales).round_().to(torch.int8), scales)


def quantize_float8(weight: Tensor) -> ScaledWeight:
    """float8_e4m3fn, by row: the greatest magnitude of a row is 448."""
    rows = weight.float()
    scales = _row_scales(rows, FLOAT8_MAX)
    return ScaledWeight((rows / scales).to(torch.float8_e4m3fn), scales)


def _row_scales(rows: Tensor, greatest: float) -> Tensor:
    """(out_features, 1); a row of zeros has scale 1."""
    scales = rows.abs().amax(dim=1, keepdim=True) / greatest
    return torch.where(scales > 0, scales, torch.ones_like(scales))
