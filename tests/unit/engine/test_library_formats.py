"""Folders that bitsandbytes or torchao quantized: the numbers and pictures that they stand for, or one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from safelight.engine.engine import load_engine
from safelight.engine.families.loading import find_source, make_network
from safelight.engine.family import network_classes
from safelight.engine.weights.component_tensors import component_tensors
from safelight.engine.weights.stored_linear import StoredLinear
from safelight.errors import UnsupportedModel
from safelight.model.families.flux1 import FLUX1
from safelight.model.memory.stored_parts import describe_parts
from safelight.settings import EngineOptions
from tests.quantizer_files import BITSANDBYTES_4, KINDS, plain_copy, quantize_component
from tests.unit.engine.drive import paint

CPU = EngineOptions(device="cpu", dtype="float32")
COMPONENTS = {"transformer": "diffusion_pytorch_model.safetensors", "text_encoder_2": "model.safetensors"}


@pytest.fixture
def folder(tiny_flux_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_flux_folder, tmp_path / "tiny"))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_stand_for_what_their_library_makes_of_them(
    folder: Path, kind: str, component: str, shards: int
) -> None:
    meant = quantize_component(folder / component, kind, shards=shards)
    network = next(each for each in FLUX1.networks if each.name == component)
    config = json.loads((folder / component / "config.json").read_text())

    tensors = component_tensors(folder, network, config)

    assert len(meant) > 10
    for name, numbers in meant.items():
        torch.testing.assert_close(tensors[name].numbers(torch.float32), numbers, rtol=1e-6, atol=0)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_the_numbers_they_stand_for(
    tiny_flux_folder: Path, folder: Path, tmp_path: Path, kind: str, component: str
) -> None:
    meant = quantize_component(folder / component, kind)
    plain = plain_copy(tiny_flux_folder, tmp_path / "plain", component, meant)

    pixels = paint(load_engine(folder, CPU))

    difference = np.abs(pixels.astype(int) - paint(load_engine(plain, CPU)).astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize("kind", ["nf4 in blocks of 16", "int8 of bitsandbytes", "int8 of torchao", "fp8 of torchao"])
def test_weights_stay_as_they_are_stored_and_the_folder_says_so(folder: Path, kind: str) -> None:
    quantize_component(folder / "transformer", kind)

    engine = load_engine(folder, CPU)

    word = kind.partition(" ")[0]
    assert describe_parts(folder)["transformer"].quantization == word
    assert engine.backend.quantization is not None
    assert word in engine.backend.quantization
    assert isinstance(engine._components.transformer.transformer_blocks[0].attn.to_q, StoredLinear)


def test_double_quantized_scales_are_counted_as_they_lie_in_memory(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    quantize_component(folder / "transformer", "nested nf4")
    quantize_component(other / "transformer", "nf4")

    assert describe_parts(folder)["transformer"].num_bytes == describe_parts(other)["transformer"].num_bytes


def _network(folder: Path) -> Path:
    return folder / "transformer" / COMPONENTS["transformer"]


def _edit(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


LAYER = "transformer_blocks.0.attn.to_q"
STATE = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"


def _state(**changes: object) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        told = json.loads(bytes(tensors[STATE].tolist())) | changes
        tensors[STATE] = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)

    return change


def _renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


BROKEN: dict[str, tuple[str, Callable[[dict[str, Tensor]], object], str]] = {
    "no scales": ("nf4", lambda t: t.pop(f"{LAYER}.weight.absmax"), "no .*to_q.weight.absmax"),
    "no weight": ("nf4", lambda t: t.pop(f"{LAYER}.weight"), "no .*to_q.weight, which"),
    "no state": ("nf4", lambda t: t.pop(STATE), "belongs to no weight"),
    "fp4": ("nf4", _renamed(STATE, STATE.replace("nf4", "fp4")), "belongs to no weight"),
    "a state that is none": ("nf4", lambda t: t.update({STATE: t[STATE][:-5].clone()}), "makes no sense"),
    "another type": ("nf4", _state(quant_type="fp4"), "makes no sense"),
    "blocks of none": ("nf4", _state(blocksize=0), "sizes below 1"),
    "a huge shape": ("nf4", _state(shape=[2**40, 2**20]), "and not as U8"),
    "a negative shape": ("nf4", _state(shape=[-8, -8]), "sizes below 1"),
    "no matrix": ("nf4", _state(shape=[8]), "makes no sense"),
    "other levels": ("nf4", lambda t: t[f"{LAYER}.weight.quant_map"].mul_(0.5), "other levels"),
    "other storage": (
        "nf4",
        lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"].reshape(-1).view(torch.bfloat16)}),
        "as BF16",
    ),
    "nested scales without theirs": (
        "nested nf4",
        lambda t: t.pop(f"{LAYER}.weight.nested_absmax"),
        "no .*nested_absmax",
    ),
    "int8 without scales": ("int8 of bitsandbytes", lambda t: t.pop(f"{LAYER}.SCB"), "belongs to no weight"),
    "a GPU's layout": (
        "int8 of bitsandbytes",
        lambda t: t[f"{LAYER}.weight_format"].fill_(2),
        "in the layout of a kind of GPU",
    ),
    "int8 that is bytes": (
        "int8 of bitsandbytes",
        lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"].view(torch.uint8)}),
        "as U8 .* and not as I8",
    ),
    "groups": (
        "int8 of torchao",
        lambda t: t.update({f"{LAYER}._weight_scale": torch.ones(len(t[f"{LAYER}._weight_qdata"]), 2)}),
        "and not as F32",
    ),
    "zeros": ("int8 of torchao", lambda t: t[f"{LAYER}._weight_zero_point"].fill_(3), "asymmetric"),
    "another part": (
        "int8 of torchao",
        lambda t: t.update({f"{LAYER}._weight_act_pre_scale": torch.ones(1)}),
        "belongs to no weight",
    ),
    "no numbers": ("int8 of torchao", lambda t: t.pop(f"{LAYER}._weight_qdata"), "belongs to no weight"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_whole_or_not_read_refuses_the_folder_in_one_sentence(folder: Path, case: str) -> None:
    kind, change, said = BROKEN[case]
    quantize_component(folder / "transformer", kind)
    _edit(_network(folder), change)

    with pytest.raises(UnsupportedModel, match=said) as caught:
        load_engine(folder, CPU)

    assert "use it in bfloat16" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["Int4Tensor", "AffineQuantizedTensor", "NVFP4Tensor"])
def test_other_tensors_of_torchao_are_named(folder: Path, kind: str) -> None:
    quantize_component(folder / "transformer", "int8 of torchao")
    path = _network(folder)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata[f"{LAYER}.weight"] = json.dumps({"_type": kind, "_tensor_data_names": ["qdata", "scale"]})
    save_file(load_file(path), path, metadata)

    with pytest.raises(UnsupportedModel, match=f"as torchao's {kind}, which is not read"):
        load_engine(folder, CPU)


def test_a_config_that_promises_what_the_files_do_not_hold_is_served_as_what_they_hold(folder: Path) -> None:
    """A component of which the library quantized nothing is a plain one."""
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": BITSANDBYTES_4}))

    assert describe_parts(folder)["transformer"].quantization is None
    paint(load_engine(folder, CPU))


def test_pickles_of_torchao_are_refused_as_such(folder: Path) -> None:
    quantize_component(folder / "transformer", "int8 of torchao")
    _network(folder).rename(folder / "transformer" / "diffusion_pytorch_model.bin")

    with pytest.raises(UnsupportedModel, match="which can run code when it is read"):
        load_engine(folder, CPU)


def test_the_network_of_a_quantized_folder_is_the_one_of_its_config(folder: Path) -> None:
    quantize_component(folder / "text_encoder_2", "nf4")
    source = find_source(
        folder, next(each for each in FLUX1.networks if each.name == "text_encoder_2"), network_classes(FLUX1)
    )

    assert sum(parameter.numel() for parameter in make_network(source).parameters()) > 0
