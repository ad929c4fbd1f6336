"""Weights that bitsandbytes or torchao quantized: which are read, and of what tensors each is made.

bitsandbytes' are those of its `QuantState.as_dict(packed=True)` and of `Linear8bitLt`; torchao's those of its
`flatten_tensor_state_dict`. What belongs together may lie in several shards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from safelight.errors import UnsupportedModel
from safelight.model.heads.own_format import NF4
from safelight.model.heads.quantizer_marks import INSTEAD
from safelight.model.heads.tensor_head import FileHead, TensorHead

Library = Literal["bitsandbytes", "torchao"]
_TORCHAO_TYPES = (
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Float8WeightOnlyConfig",
    "Float8DynamicActivationFloat8WeightConfig",
)
"""Activations are never quantized here: of the dynamic kinds only the weights are read."""
_TENSOR_DTYPES = {"Int8Tensor": "I8", "Float8Tensor": "F8_E4M3"}
_NF4_STATE = ".quant_state.bitsandbytes__nf4"
_BESIDE = re.compile(r"\.((nested_)?absmax|(nested_)?quant_map|SCB|weight_format)$|\.quant_state\.|\._weight_\w+$")
_NUMBER_OF_LEVELS, _NUMBER_OF_NESTED_LEVELS = 16, 256
_INT8_MAX = 127
_MOST_STATE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Nested:
    """bitsandbytes' second quantization: a block's scale is levels[its byte] * greatest of its block + offset."""

    greatest: str
    levels: str
    block: int
    offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """Of which tensors a matrix is made, by their names."""

    dtype: str
    """I8 and F8_E4M3, with a scale for each row or one for all; NF4, with one for each `block`."""
    shape: tuple[int, int]
    numbers: str
    scale: str
    divisor: int = 1
    """Of the scale."""
    zeros: str | None = None
    """A tensor that must hold nothing else."""
    levels: str | None = None
    """What the sixteen of NF4 stand for."""
    block: int = 0
    nested: Nested | None = None

    @property
    def num_bytes(self) -> int:
        """In memory, where each scale is in fp32."""
        numbers = math.prod(self.shape)
        if self.dtype == NF4:
            return -(-numbers // 2) + 4 * -(-numbers // self.block)
        return numbers + 4 * self.shape[0]


@dataclass(frozen=True, slots=True)
class PackedSet:
    """What the files of a component hold."""

    weights: Mapping[str, PackedWeight]
    plain: Mapping[str, TensorHead]
    """Everything that is not quantized."""


def library_in_config(config: Mapping[str, Any]) -> Library | None:
    """The library whose weights a component has, if they are of a kind that is read; None for anything else."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = settings.get("quant_method")
    if method == "torchao" and torchao_type(settings) in _TORCHAO_TYPES:
        return "torchao"
    if method in ("bitsandbytes", None) and (
        settings.get("load_in_8bit") or (settings.get("load_in_4bit") and four_bit_type(settings) == "nf4")
    ):
        return "bitsandbytes"
    return None


def four_bit_type(settings: Mapping[str, Any]) -> str:
    return str(settings.get("bnb_4bit_quant_type", "fp4"))


def torchao_type(settings: Mapping[str, Any]) -> str | None:
    """The class of torchao's config; None where it names none."""
    default = settings.get("quant_type")
    if isinstance(default, dict):
        default = default.get("default", default)
    if isinstance(default, dict):
        default = default.get("_type")
    return default if isinstance(default, str) else None


def find_packed(heads: Mapping[Path, FileHead], library: Library) -> PackedSet:
    """What the files of a component that the library wrote hold. Raises OSError or UnsupportedModel, naming a file."""
    reader = _Reader({name: (path, tensor) for path, head in heads.items() for name, tensor in head.tensors.items()})
    if library == "torchao":
        weights = dict(
            _find_torchao(reader, {key: value for head in heads.values() for key, value in head.metadata.items()})
        )
    else:
        weights = dict(_find_bitsandbytes(reader))
    plain = {name: tensor for name, (_, tensor) in reader.tensors.items() if name not in reader.used}
    for name, tensor in plain.items():
        if _BESIDE.search(name) or tensor.dtype in ("U8", "I8"):
            raise reader.unread(name, f"{name} as {tensor.dtype}, which belongs to no weight that is read")
    return PackedSet(weights, plain)


class _Reader:
    """The tensors of all files, and which of them have been found to belong to a weight."""

    def __init__(self, tensors: Mapping[str, tuple[Path, TensorHead]]) -> None:
        self.tensors = tensors
        self.used = set[str]()

    def take(self, name: str, dtype: str, *shapes: tuple[int, ...]) -> str:
        """The name, of a tensor that is of this dtype and of one of these shapes."""
        if name not in self.tensors:
            raise UnsupportedModel(f"the files have no {name}, which a quantized weight needs; {INSTEAD}")
        tensor = self.tensors[name][1]
        if tensor.dtype != dtype or tensor.shape not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise self.unread(name, f"{name} as {tensor.dtype} {list(tensor.shape)} and not as {dtype} {wanted}")
        self.used.add(name)
        return name

    def read(self, name: str) -> bytes:
        path, tensor = self.tensors[name]
        if tensor.num_bytes > _MOST_STATE_BYTES:
            raise self.unread(name, f"{tensor.num_bytes} bytes in {name}")
        with path.open("rb") as file:
            file.seek(tensor.start)
            return file.read(tensor.num_bytes)

    def unread(self, name: str, what: str) -> UnsupportedModel:
        return UnsupportedModel(f"{self.tensors[name][0]} has {what}, which is not read; {INSTEAD}")


class _State(msgspec.Struct):
    quant_type: Literal["nf4"]
    blocksize: int
    shape: tuple[int, int]
    nested_blocksize: int = 0
    nested_offset: float = 0.0


def _find_bitsandbytes(reader: _Reader) -> Iterator[tuple[str, PackedWeight]]:
    for name in list(reader.tensors):
        if name.endswith(_NF4_STATE):
            yield name.removesuffix(_NF4_STATE), _nf4(reader, name)
        elif name.endswith(".SCB"):
            yield name.removesuffix("SCB") + "weight", _eight_bit(reader, name.removesuffix("SCB"))


def _nf4(reader: _Reader, state_name: str) -> PackedWeight:
    weight = state_name.removesuffix(_NF4_STATE)
    try:
        state = msgspec.json.decode(reader.read(state_name), type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise reader.unread(state_name, f"{state_name} that makes no sense") from None
    numbers = math.prod(state.shape)
    if min(*state.shape, state.blocksize) < 1 or state.nested_blocksize < 0:
        raise reader.unread(state_name, f"{state_name} with sizes below 1")
    reader.used.add(state_name)
    blocks = -(-numbers // state.blocksize)
    packed = -(-numbers // 2)
    return PackedWeight(
        dtype=NF4,
        shape=state.shape,
        numbers=reader.take(weight, "U8", (packed, 1), (1, packed)),
        scale=reader.take(f"{weight}.absmax", "U8" if state.nested_blocksize else "F32", (blocks,)),
        levels=reader.take(f"{weight}.quant_map", "F32", (_NUMBER_OF_LEVELS,)),
        block=state.blocksize,
        nested=_nested(reader, weight, state, blocks) if state.nested_blocksize else None,
    )


def _nested(reader: _Reader, weight: str, state: _State, blocks: int) -> Nested:
    return Nested(
        greatest=reader.take(f"{weight}.nested_absmax", "F32", (-(-blocks // state.nested_blocksize),)),
        levels=reader.take(f"{weight}.nested_quant_map", "F32", (_NUMBER_OF_NESTED_LEVELS,)),
        block=state.nested_blocksize,
        offset=state.nested_offset,
    )


def _eight_bit(reader: _Reader, prefix: str) -> PackedWeight:
    weight = f"{prefix}weight"
    shape = _matrix(reader, weight)
    if f"{prefix}weight_format" in reader.tensors:
        layout = reader.take(f"{prefix}weight_format", "U8", (), (1,))
        if reader.read(layout) != b"\0":
            raise reader.unread(layout, f"{weight} in the layout of a kind of GPU")
    return PackedWeight(
        dtype="I8",
        shape=shape,
        numbers=reader.take(weight, "I8", shape),
        scale=reader.take(f"{prefix}SCB", "F32", (shape[0],)),
        divisor=_INT8_MAX,
    )


class _TorchaoTensor(msgspec.Struct):
    """What a file's metadata says of one tensor."""

    type: str = msgspec.field(name="_type")
    data_names: tuple[str, ...] = msgspec.field(name="_tensor_data_names", default=())


def _find_torchao(reader: _Reader, metadata: Mapping[str, object]) -> Iterator[tuple[str, PackedWeight]]:
    for name, text in metadata.items():
        module, _, attribute = name.rpartition(".")
        prefix = f"{module}._{attribute}_"
        if f"{prefix}qdata" not in reader.tensors:
            continue
        try:
            told = msgspec.json.decode(str(text), type=_TorchaoTensor)
        except msgspec.MsgspecError:
            raise reader.unread(f"{prefix}qdata", f"metadata that make no sense of {name}") from None
        yield name, _torchao(reader, prefix, told)


def _torchao(reader: _Reader, prefix: str, told: _TorchaoTensor) -> PackedWeight:
    numbers = f"{prefix}qdata"
    dtype, others = _TENSOR_DTYPES.get(told.type), set(told.data_names) - {"qdata", "scale", "zero_point"}
    if dtype is None or others:
        with_what = f" with {', '.join(sorted(others))}" if others else ""
        raise reader.unread(numbers, f"{numbers} as torchao's {told.type[:40]}{with_what}")
    shape = _matrix(reader, numbers)
    scales = ((shape[0], 1), (shape[0],), (1, 1), (1,), ())
    scale = f"{prefix}scale"
    zeros = f"{prefix}zero_point"
    return PackedWeight(
        dtype=dtype,
        shape=shape,
        numbers=reader.take(numbers, dtype, shape),
        scale=reader.take(scale, _float_dtype(reader, scale), *scales),
        zeros=reader.take(zeros, "I8", *scales) if zeros in reader.tensors else None,
    )


def _float_dtype(reader: _Reader, name: str) -> str:
    """That of a scale, which torchao keeps in the dtype of the weights it was made from, or in fp32."""
    dtype = reader.tensors[name][1].dtype if name in reader.tensors else "F32"
    return dtype if dtype in ("BF16", "F16") else "F32"


def _matrix(reader: _Reader, name: str) -> tuple[int, int]:
    shape = reader.tensors[name][1].shape if name in reader.tensors else ()
    if len(shape) != 2:
        raise UnsupportedModel(f"{name} is {list(shape)} and no matrix, or is missing; {INSTEAD}")
    return shape[0], shape[1]
