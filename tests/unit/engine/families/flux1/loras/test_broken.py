"""A LoRA file whose settings, names, factors or bytes make no sense is refused in one line; they are from anybody."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from safelight.engine.families.flux1.components import Components
from safelight.engine.families.flux1.loras.files import read_lora
from safelight.errors import ModelLoadError
from safelight.model.spec import LoraFile
from tests.full_width import GOOD, WIDTH, Shapes, full_width_components, kohya, ones, peft, read, refusal, zeros


@pytest.fixture(scope="module")
def components() -> Components:
    return full_width_components()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "film.safetensors"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "LOHA"}, "is a LOHA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "convert it to a plain LoRA"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern '('"),
        ({"alpha_pattern": {"(.*)" * 12 + r"\3\d$": 1}}, "takes too long"),
        ({"alpha_pattern": {"a" * 5000 + "(": 1}}, "makes no sense"),
        ({"alpha_pattern": [1]}, "is no LoRA that can be read"),
        ({"lora_alpha": [1]}, "is no LoRA that can be read"),
        ({"lora_alpha": "much"}, "is no LoRA that can be read"),
        ({"lora_alpha": float("inf")}, "is NaN or infinite"),
    ],
)
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_settings_that_are_not_a_plain_loras_or_make_no_sense_are_refused(
    file: Path, components: Components, config: dict[str, Any], told: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safelight.engine.families.flux1.loras.settings.MATCHING_S", 0.2)
    metadata = {}
    if place == "beside":
        (file.parent / "adapter_config.json").write_text(json.dumps(config))
    else:
        own = {f"transformer.{name}": value for name, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(own)

    assert told in refusal(file, components, ones(peft("base_model.model.transformer_blocks.0.attn.to_q")), **metadata)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass"), "1" * 5000]
)
def test_settings_that_are_no_json_object_are_refused(file: Path, components: Components, text: str | bytes) -> None:
    (file.parent / "adapter_config.json").write_bytes(text.encode() if isinstance(text, str) else text)

    assert "is no LoRA that can be read" in refusal(
        file, components, ones(peft("base_model.model.proj_out", WIDTH, 64))
    )


def test_settings_that_are_very_large_are_refused(file: Path, components: Components) -> None:
    (file.parent / "adapter_config.json").write_text(json.dumps({"x": "x" * 2_000_000}))

    assert "is too large" in refusal(file, components, ones(peft("base_model.model.proj_out", WIDTH, 64)))


def test_two_alphas_of_one_layer_are_refused(file: Path, components: Components) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q"
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})}
    tensors = ones(peft(name)) | {f"{name}.alpha": torch.tensor(4.0)}

    assert f"says alpha 8 of {name} in its settings, and 4 beside it" in refusal(file, components, tensors, **metadata)


@pytest.mark.parametrize(
    "others",
    [
        peft("diffusion_model.double_blocks.0.img_attn.proj"),
        peft("transformer.transformer_blocks.0.attn.to_out.0"),
        {f"{GOOD}.lora_A.weight": (2, WIDTH)},
        {f"{GOOD}.lora_down.default.weight": (2, WIDTH)},
        {"double_blocks.0.img_attn.proj.alpha": ()},
        kohya("lora_transformer_transformer_blocks_0_attn_to_out_0"),
    ],
)
def test_two_namings_of_one_layer_are_refused_by_both(file: Path, components: Components, others: Shapes) -> None:
    message = refusal(file, components, ones(kohya(GOOD)) | ones(others))

    assert "for the same layer" in message
    assert GOOD in message
    assert any(key in message for key in others)


def test_a_fused_layer_beside_one_of_its_parts_is_refused_by_both_names(file: Path, components: Components) -> None:
    fused, part = "lora_unet_double_blocks_0_img_attn_qkv", "transformer.transformer_blocks.0.attn.to_k"

    message = refusal(file, components, ones(kohya(fused, WIDTH, 9216)) | ones(peft(part)))

    assert f"{fused} and {part} are both for transformer_blocks.0.attn.to_k" in message


def test_two_namings_of_different_layers_are_both_read(file: Path, components: Components) -> None:
    lora = read(file, components, ones(kohya(GOOD)) | ones(peft("transformer.proj_out", WIDTH, 64)))

    assert set(lora.transformer) == {"transformer_blocks.0.attn.to_out.0", "proj_out"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({f"{GOOD}.lora_down.weight": torch.ones(3, WIDTH)}, f"{GOOD}.lora_up.weight is {WIDTH}x2, not {WIDTH}x3"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 3)}, f"{GOOD}.lora_up.weight is {WIDTH}x3, not {WIDTH}x2"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2, 99)}, f"{GOOD}.lora_down.weight is 2x99, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_down.weight": torch.ones(0, WIDTH)}, f"{GOOD}.lora_down.weight is 0x{WIDTH}, of rank 0"),
        ({f"{GOOD}.lora_down.weight": torch.ones(())}, f"{GOOD}.lora_down.weight is one number, of rank 0"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2)}, f"{GOOD}.lora_down.weight is 2, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2, WIDTH, 1, 1)}, f"2x{WIDTH}x1x1, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_up.bias": torch.ones(7)}, f"{GOOD}.lora_up.bias is 7, not {WIDTH}"),
        ({f"{GOOD}.alpha": torch.ones(2)}, f"{GOOD}.alpha is 2 of F32, not one number"),
        ({f"{GOOD}.alpha": torch.ones(1, dtype=torch.complex64)}, f"{GOOD}.alpha is 1 of C64, not one number"),
        ({f"{GOOD}.alpha": torch.tensor(float("nan"))}, f"{GOOD} is NaN or infinite in float32"),
        ({f"{GOOD}.lora_up.weight": torch.full((WIDTH, 2), float("inf"))}, f"{GOOD} is NaN or infinite in float32"),
        ({f"{GOOD}.lora_up.weight": torch.full((WIDTH, 2), 1e300, dtype=torch.float64)}, f"{GOOD} is NaN or infinite"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).int()}, "is made of I32, not of floating-point numbers"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).bool()}, "is made of BOOL, not of floating-point numbers"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).to(torch.complex64)}, "is made of C64, not of"),
    ],
)
def test_factors_that_do_not_fit_are_refused_with_what_would(
    file: Path, components: Components, change: Mapping[str, Tensor], expected: str
) -> None:
    assert expected in refusal(file, components, ones(kohya(GOOD)) | change)


@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight"])
def test_half_of_a_layer_is_refused(file: Path, components: Components, part: str) -> None:
    tensors = ones(kohya(GOOD))
    del tensors[f"{GOOD}.{part}"]

    assert f"{GOOD} lacks" in refusal(file, components, tensors)


@pytest.mark.parametrize("name", [GOOD, "lora_te3_x"])
def test_an_alpha_alone_is_refused(file: Path, components: Components, name: str) -> None:
    tensors = ones(kohya("lora_unet_img_in", 64)) | {f"{name}.alpha": torch.tensor(1.0)}

    assert f"{name}.alpha" in refusal(file, components, tensors)


@pytest.mark.parametrize(
    "tensors", [{}, zeros(kohya("lora_te3_x")), zeros({f"{GOOD}.diff_b": (WIDTH,)})], ids=["none", "T5", "biases"]
)
def test_a_file_with_nothing_in_it_is_refused(
    file: Path, components: Components, tensors: Mapping[str, Tensor]
) -> None:
    assert refusal(file, components, tensors) == f"{file} holds no LoRA"


def _head(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


ODD_TYPE = json.dumps({"x": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is no safetensors file"),
        (b"\x80\x02}q\x00.", "is no safetensors file: a pickle, which can run code"),
        (b"PK\x03\x04" + b"\0" * 100, "is no safetensors file: a zip archive, as PyTorch's pickles are"),
        (b"GGUF\x03\0\0\0" + b"\0" * 100, "is no safetensors file: a GGUF file"),
        (_head(b"{}", 2**40), "is no safetensors file"),
        (_head(b"{}", 90_000_000), "is no safetensors file"),
        (_head(b"[" * 10_000), "is no safetensors file"),
        (_head(b'{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "is no safetensors file"),
        (_head(b'{"x":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,4]}}') + b"\0" * 4, "is no"),
        (_head(ODD_TYPE) + b"\0" * 3, "holds no LoRA, but whole weights or something else (x)"),
    ],
)
def test_what_is_no_safetensors_file_or_an_odd_one_is_refused(
    file: Path, components: Components, content: bytes, expected: str
) -> None:
    file.write_bytes(content)

    with pytest.raises(ModelLoadError) as caught:
        read_lora(LoraFile(name="film", file=str(file)), components)

    assert expected in caught.value.message


@pytest.mark.parametrize(
    "name", ["up_blocks." * 20_000 + "lora_A.weight", "down." * 50_000 + "weight", "lora_A" * 50_000]
)
def test_names_of_any_length_are_looked_at_in_no_time(file: Path, components: Components, name: str) -> None:
    assert name[:100] in refusal(file, components, {name: torch.ones(2, 2)} | ones(kohya(GOOD)))


FRONTS = ["", "transformer.", "diffusion_model.", "lora_unet_", "base_model.model.", "text_encoder.", "lora_te3_"]
MIDDLES = ["proj_out", "double_blocks.0.img_attn.qkv", "single_blocks_0_linear1", "final_layer.adaLN_modulation.1", "x"]
ENDS = ["lora_A.weight", "lora_up.weight", "lora_down.default.weight", "lora_B.bias", "alpha", "dora_scale", "diff", ""]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (2, WIDTH), (64, 2), (9216, 2), (0, WIDTH), (2, 2, 2), (2, 6144)]
TYPES = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64, torch.float64]
VALUES = [0.0, 1.0, float("nan")]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    drawn=st.dictionaries(
        st.tuples(st.sampled_from(FRONTS), st.sampled_from(MIDDLES), st.sampled_from(ENDS)).map(
            lambda each: f"{each[0]}{each[1]}.{each[2]}"
        ),
        st.tuples(st.sampled_from(SHAPES), st.sampled_from(TYPES), st.sampled_from(VALUES)),
        max_size=6,
    ),
    more=st.sampled_from([{}, kohya(GOOD), peft("transformer.proj_out", WIDTH, 64)]),
)
def test_whatever_is_in_a_file_it_is_read_or_refused_in_one_line(
    file: Path, components: Components, drawn: dict[str, tuple[tuple[int, ...], torch.dtype, float]], more: Shapes
) -> None:
    tensors = ones(more) | {
        name: (torch.full(shape, value).nan_to_num(1) if dtype in TYPES[3:5] else torch.full(shape, value)).to(dtype)
        for name, (shape, dtype, value) in drawn.items()
    }

    said = ""
    try:
        assert read(file, components, tensors).nbytes
    except ModelLoadError as error:
        said = error.message

    assert said == "" or said.startswith(f"{file} ")
    assert said.isprintable()


@pytest.mark.parametrize("suffix", [".SAFETENSORS", "", ".v1.2", ".txt"])
def test_a_file_is_read_whatever_its_ending(tmp_path: Path, components: Components, suffix: str) -> None:
    assert read(tmp_path / f"film{suffix}", components, ones(kohya(GOOD))).transformer
