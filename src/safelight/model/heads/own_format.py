"""The files that `safelight model quantize` writes: safetensors whose matrices lie there as they are multiplied.

`NAME.weight` is int8, float8_e4m3fn or, of nf4, uint8 with two numbers a byte; `NAME.weight_scale` beside it, in the
same file, has a scale for each row (fp32) or for each block of a row (fp16, nf4). The file's own metadata says so
(`safelight_quantization`), and so does the component's config.json: docs/decisions/0028-quantized-once.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.heads.tensor_head import FileHead, TensorHead

METHOD = "safelight"
"""`quant_method` of the quantization_config in a component's config.json."""
KINDS: Mapping[str, str] = {"int8": "I8", "fp8": "F8_E4M3", "nf4": "U8"}
"""`type` there, and the dtype of safetensors that its matrices have."""
METADATA = "safelight_quantization"
"""Its key in the head of a file; the value is one of KINDS."""
SCALE = "_scale"
"""Follows the name of a weight."""
NF4, NF4_BLOCK = "NF4", 64
"""What a head calls the dtype of such a weight, whose shape is that of its numbers; and how many share a scale."""
_QUANTIZED = ("I8", "F8_E4M3", NF4)
"""What a head calls the dtypes of weights with scales."""
_AGAIN = "quantize the model again"


def kind_in_config(config: Mapping[str, Any]) -> str | None:
    """The `type` of a component that was quantized here; None for any other. Raises UnsupportedModel."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") != METHOD:
        return None
    kind = settings.get("type")
    if kind not in KINDS:
        raise UnsupportedModel(
            f"it was quantized by another version of Safelight, as {str(kind)[:40]!r}; read are {', '.join(KINDS)}"
        )
    return str(kind)


def is_own(head: FileHead) -> bool:
    return METADATA in head.metadata


def as_numbers(head: FileHead) -> FileHead:
    """The head with nf4's pairs as the numbers that they are."""
    if not is_own(head):
        return head
    tensors = {
        name: replace(tensor, dtype=NF4, shape=(*tensor.shape[:-1], tensor.shape[-1] * 2))
        if tensor.dtype == KINDS["nf4"] and tensor.shape and name + SCALE in head.tensors
        else tensor
        for name, tensor in head.tensors.items()
    }
    return replace(head, tensors=tensors)


def own_scales(path: Path, head: FileHead) -> dict[str, str]:
    """Weight -> its scale. Raises ModelLoadError unless each quantized weight has one, and each of them a weight."""
    scales = {}
    for name, tensor in head.tensors.items():
        weight, scale = name.removesuffix(SCALE), head.tensors.get(name + SCALE)
        if name.endswith(f".weight{SCALE}"):
            if weight not in head.tensors or head.tensors[weight].dtype not in _QUANTIZED:
                raise ModelLoadError(f"{path} has {name} without its weight; {_AGAIN}")
        elif scale is not None:
            _check_scale(path, name, tensor, scale)
            scales[name] = name + SCALE
        elif tensor.dtype in (*_QUANTIZED, KINDS["nf4"]):
            raise ModelLoadError(f"{path} has {name} as {tensor.dtype} without scales; {_AGAIN}")
    return scales


def scale_head(dtype: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, int]]:
    """The dtype and shape of the scales of a weight (out_features, in_features)."""
    if dtype != NF4:
        return "F32", (shape[0], 1)
    return "F16", (shape[0], shape[1] // math.gcd(shape[1], NF4_BLOCK))


def _check_scale(path: Path, name: str, weight: TensorHead, scale: TensorHead) -> None:
    if weight.dtype not in _QUANTIZED or len(weight.shape) != 2:
        raise ModelLoadError(f"{path} has scales for {name}, which is {weight.dtype} {list(weight.shape)}; {_AGAIN}")
    if (scale.dtype, scale.shape) != scale_head(weight.dtype, weight.shape):
        raise ModelLoadError(
            f"{path} has {name}{SCALE} as {scale.dtype} {list(scale.shape)}, which is not of that weight; {_AGAIN}"
        )
