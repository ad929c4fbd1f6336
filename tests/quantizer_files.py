"""Components as bitsandbytes and torchao write them, made from their formats' definitions: neither is needed here.

https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/functional.py (QuantState.as_dict),
https://github.com/pytorch/ao/blob/main/torchao/prototype/safetensors/safetensors_support.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Made = tuple[dict[str, Tensor], Tensor, dict[str, Any] | None]
"""The tensors of a file by what follows the layer's name, what they stand for, and torchao's metadata of the weight."""
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
       0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]  # fmt: skip
OFFSET = 0.25


def nf4(weight: Tensor, block: int = 64) -> Made:
    return _nf4(weight, block, is_nested=False)


def nested_nf4(weight: Tensor, block: int = 64) -> Made:
    return _nf4(weight, block, is_nested=True)


def _nf4(weight: Tensor, block: int, *, is_nested: bool) -> Made:
    levels, numbers = torch.tensor(NF4), weight.float().reshape(-1)
    count = numbers.numel()
    blocks = torch.cat([numbers, torch.zeros(-count % block)]).reshape(-1, block)
    greatest = blocks.abs().amax(dim=1)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
    made = {"weight.absmax": greatest, "weight.quant_map": levels}
    if is_nested:
        nested_levels = torch.linspace(-1, 1, 256)
        far = (greatest - OFFSET).abs().reshape(-1)
        nested_greatest = torch.stack([part.amax() for part in far.split(256)])
        wide = nested_greatest.repeat_interleave(256)[: len(far)]
        bytes_ = ((greatest - OFFSET) / wide)[:, None].sub(nested_levels).abs().argmin(dim=1)
        greatest = nested_levels[bytes_] * wide + OFFSET
        made |= {
            "weight.absmax": bytes_.to(torch.uint8),
            "weight.nested_absmax": nested_greatest,
            "weight.nested_quant_map": nested_levels,
        }
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": OFFSET}
    picked = (blocks / greatest.clamp(min=1e-9)[:, None])[..., None].sub(levels).abs().argmin(dim=2).reshape(-1)[:count]
    even = torch.cat([picked, torch.zeros(count % 2, dtype=torch.long)])
    text = json.dumps(state).encode()
    made |= {
        "weight": (even[::2] * 16 + even[1::2]).to(torch.uint8)[:, None],
        "weight.quant_state.bitsandbytes__nf4": torch.frombuffer(bytearray(text), dtype=torch.uint8),
    }
    meant = levels[picked] * greatest.repeat_interleave(block)[:count]
    return made, meant.reshape(weight.shape), None


def llm_int8(weight: Tensor) -> Made:
    greatest = weight.float().abs().amax(dim=1)
    numbers = (weight.float() / greatest[:, None] * 127).round().to(torch.int8)
    made = {"weight": numbers, "SCB": greatest, "weight_format": torch.zeros((), dtype=torch.uint8)}
    return made, numbers.float() * (greatest / 127)[:, None], None


def torchao_int8(weight: Tensor) -> Made:
    scale = (weight.float().abs().amax(dim=1, keepdim=True) / 127).bfloat16()
    numbers = (weight.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
    made = {
        "_weight_qdata": numbers,
        "_weight_scale": scale,
        "_weight_zero_point": torch.zeros(len(weight), 1, dtype=torch.int8),
    }
    return made, numbers.float() * scale.float(), _told("Int8Tensor", weight, ["zero_point", "qdata", "scale"])


def torchao_float8(weight: Tensor) -> Made:
    scale = weight.float().abs().amax(dim=1, keepdim=True) / 448
    numbers = (weight.float() / scale).to(torch.float8_e4m3fn)
    made = {"_weight_qdata": numbers, "_weight_scale": scale}
    return made, numbers.float() * scale, _told("Float8Tensor", weight, ["qdata", "scale"])


def _told(kind: str, weight: Tensor, names: list[str]) -> dict[str, Any]:
    dtype = {"_type": "torch.dtype", "_data": "bfloat16"}
    data = {"act_quant_kwargs": None, "block_size": [1, weight.shape[1]], "dtype": dtype}
    return {"_type": kind, "_data": data, "_tensor_data_names": names}


BITSANDBYTES_4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
KINDS: Mapping[str, tuple[Callable[[Tensor], Made], Mapping[str, Any]]] = {
    "nf4": (nf4, BITSANDBYTES_4),
    "nested nf4": (nested_nf4, BITSANDBYTES_4 | {"bnb_4bit_use_double_quant": True}),
    "nf4 in blocks of 16": (lambda weight: nf4(weight, 16), BITSANDBYTES_4),
    "int8 of bitsandbytes": (llm_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "int8 of torchao": (
        torchao_int8,
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}},
    ),
    "fp8 of torchao": (
        torchao_float8,
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Float8WeightOnlyConfig"}}},
    ),
}


def quantize_component(place: Path, kind: str, *, shards: int = 1) -> dict[str, Tensor]:
    """Rewrite the files in the folder of a component. Returns what each of its quantized weights now stands for."""
    make, settings = KINDS[kind]
    (path,) = place.glob("*.safetensors")
    tensors, meant, told = dict[str, Tensor](), dict[str, Tensor](), dict[str, Any]()
    for name, weight in load_file(path).items():
        told[name] = {"_type": "Tensor"}
        if weight.ndim != 2 or not name.endswith(".weight") or "embed" in name or "shared" in name or "bias" in name:
            tensors[name] = weight
            continue
        made, meant[name], about = make(weight)
        told[name] = about or told[name]
        tensors |= {name.removesuffix("weight") + ending: tensor.contiguous() for ending, tensor in made.items()}
    metadata = {"format": "pt"}
    if settings["quant_method"] == "torchao":
        metadata |= {name: json.dumps(about) for name, about in told.items()} | {"tensor_names": json.dumps(list(told))}
    _save(path, tensors, metadata, shards)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return meant


def plain_copy(folder: Path, out: Path, component: str, meant: Mapping[str, Tensor]) -> Path:
    """A checkpoint with the numbers that the quantized weights stand for, in fp32."""
    shutil.copytree(folder, out)
    (path,) = (out / component).glob("*.safetensors")
    save_file({name: meant.get(name, tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return out


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], shards: int) -> None:
    """What belongs together comes apart: each shard gets every so-manieth tensor."""
    path.unlink()
    if shards == 1:
        save_file(tensors, path, metadata)
        return
    names = {name: f"{path.stem}-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, path.parent / file, metadata)
    (path.parent / f"{path.stem}.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
