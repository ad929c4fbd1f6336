"""How files name what belongs to quantized weights: the scales of fp8, which are read, and what is not.

Scales come in three spellings, all of ComfyUI and its neighbours: `X.scale_weight` (with an empty tensor `scaled_fp8`
as a mark), and `X.weight_scale` with `X.comfy_quant`, some JSON, or without. Each weight is multiplied by its scale.
`scale_input` and `input_scale` are for activations in fp8. Safelight multiplies in the dtype of computation, where they
would change nothing, so they are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import UnsupportedModel
from safelight.model.heads.own_format import is_own, own_scales
from safelight.model.heads.tensor_head import FileHead, TensorHead

QUANTIZERS = (
    (re.compile(r"\.weight_scale_2$|(^|\.)nvfp4"), "nvfp4"),
    (re.compile(r"\.((nested_)?absmax|(nested_)?quant_map|SCB|weight_format)$|\.quant_state\."), "bitsandbytes"),
    (re.compile(r"\._(data|scale|shift)$"), "quanto"),
    (re.compile(r"\._weight_(qdata|scale|zero_point)$"), "torchao"),
    (re.compile(r"\.(zero_point|svd_up|svd_down)$"), "SDNQ"),
    (re.compile(r"\.(qweight|qzeros|wscales|wzeros|smooth_factor)$"), "Nunchaku, GPTQ or AWQ"),
)
"""How each names what belongs to its quantized weights, which are not read from single files."""
SCALE_ENDINGS = (".scale_weight", ".weight_scale")
_LEFT_OUT = re.compile(r"(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$")
_NO_SCALE = re.compile(r"\.(query_norm|key_norm)\.scale$|(^|\.)logit_scale$")
"""Names that only sound like one."""
FLOAT8 = ("F8_E4M3", "F8_E5M2")
PLAIN = ("F64", "F32", "F16", "BF16")
GGUF_READ = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K")
_EMBEDDING = re.compile(r"embed|shared\.|relative_attention_bias")
_COMFY_FORMATS = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
_MOST_JSON_BYTES = 4096
INSTEAD = "use it in bfloat16, in fp8, plain or scaled, or as GGUF"


@dataclass(frozen=True, slots=True)
class Scales:
    """What stands beside the weights of a file."""

    of: Mapping[str, str]
    """Name of a weight -> name of its scale."""
    left_out: frozenset[str]
    """Marks, and the scales of activations."""

    @property
    def names(self) -> frozenset[str]:
        """Of everything that is no weight."""
        return self.left_out | frozenset(self.of.values())


def find_scales(path: Path, head: FileHead) -> Scales:
    """Raises UnsupportedModel for a file that is quantized in a way that is not read, or only half."""
    if is_own(head):
        return Scales(own_scales(path, head), frozenset())
    _check_method(path, head.tensors)
    if head.format == "gguf":
        _check_gguf_types(path, head.tensors)
        return Scales({}, frozenset())
    left_out = frozenset(name for name in head.tensors if _LEFT_OUT.search(name))
    scales = {}
    for name, tensor in head.tensors.items():
        if name.endswith(SCALE_ENDINGS):
            weight = name.rpartition(".")[0] + ".weight"
            _check_scale(path, name, tensor, head.tensors.get(weight))
            scales[weight] = name
        elif "scale" in name.lower() and name not in left_out and not _NO_SCALE.search(name):
            raise UnsupportedModel(f"{path} has scales of an unknown kind ({name}), which are not read; {INSTEAD}")
        elif name.endswith(".comfy_quant"):
            _check_comfy(path, name, tensor, head.tensors)
    _check_none_without(path, head.tensors, scales)
    return Scales(scales, left_out)


def _check_method(path: Path, tensors: Mapping[str, TensorHead]) -> None:
    for pattern, method in QUANTIZERS:
        found = next((name for name in tensors if pattern.search(name)), None)
        if found is not None:
            raise UnsupportedModel(f"{path} is quantized with {method} ({found}), which is not read; {INSTEAD}")


def _check_gguf_types(path: Path, tensors: Mapping[str, TensorHead]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in GGUF_READ:
            raise UnsupportedModel(
                f"{path} has {name} as {tensor.dtype}, which is not read; read are {', '.join(GGUF_READ)}"
            )


def _check_scale(path: Path, name: str, scale: TensorHead, weight: TensorHead | None) -> None:
    if weight is None:
        raise UnsupportedModel(f"{path} has a scale without its weight ({name}): it is half converted; {INSTEAD}")
    if weight.dtype not in FLOAT8:
        raise UnsupportedModel(
            f"{path} has a scale ({name}) beside a weight in {weight.dtype}, which is not read; {INSTEAD}"
        )
    rows = weight.shape[0] if weight.shape else 1
    if scale.dtype not in PLAIN or scale.shape not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        raise UnsupportedModel(
            f"{path} has {name} as {scale.dtype} {list(scale.shape)}: neither one scale nor one for each of the "
            f"{rows} rows, which is not read; {INSTEAD}"
        )


def _check_comfy(path: Path, name: str, tensor: TensorHead, tensors: Mapping[str, TensorHead]) -> None:
    weight = tensors.get(name.rpartition(".")[0] + ".weight")
    told = _read_json(path, tensor)
    kind = told.get("format") if isinstance(told, dict) else None
    if weight is None or _COMFY_FORMATS.get(str(kind)) != weight.dtype:
        raise UnsupportedModel(f"{path} is quantized as {str(kind)[:40]} ({name}), which is not read; {INSTEAD}")


def _read_json(path: Path, tensor: TensorHead) -> object:
    """None if it is none."""
    if tensor.num_bytes > _MOST_JSON_BYTES:
        return None
    with path.open("rb") as file:
        file.seek(tensor.start)
        try:
            told: object = json.loads(file.read(tensor.num_bytes))
        except (ValueError, RecursionError):
            return None
    return told


def _check_none_without(path: Path, tensors: Mapping[str, TensorHead], scales: Mapping[str, str]) -> None:
    """Where weights have scales, all matrices in fp8 have: one without would be wrong by its scale."""
    for name, tensor in tensors.items() if scales else ():
        is_matrix = tensor.dtype in FLOAT8 and len(tensor.shape) == 2 and name.endswith(".weight")
        if is_matrix and name not in scales and not _EMBEDDING.search(name):
            raise UnsupportedModel(
                f"{path} has scales for some of its weights in fp8, and none for {name}: it is half converted; "
                f"{INSTEAD}"
            )
