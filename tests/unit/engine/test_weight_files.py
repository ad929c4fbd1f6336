"""The tensors of a file are mapped as they lie there, and stand for the numbers that their format defines."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from safelight.engine.weights.files import open_file
from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.heads.quantizer_marks import GGUF_READ
from tests.gguf_files import packed, write_gguf

BLOCKS = {"Q8_0": 0.01, "Q6_K": 0.04, "Q5_K": 0.05, "Q4_K": 0.1, "Q4_0": 0.15, "F16": 0.001, "BF16": 0.005, "F32": 0.0}
"""And how far from the numbers each may be, of their standard deviation."""


def random(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize(("kind", "error"), BLOCKS.items())
def test_blocks_of_gguf_stand_for_the_numbers_that_they_were_made_of(tmp_path: Path, kind: str, error: float) -> None:
    numbers = random(6, 512)
    path = write_gguf(
        tmp_path / "file.gguf",
        {"odd": numbers[:, :3], "weight": numbers},
        lambda name: "F32" if name == "odd" else kind,
    )

    tensors = open_file(path)

    made = tensors["weight"].numbers(torch.float32).numpy()
    assert np.sqrt(np.mean((made - numbers) ** 2)) <= error
    assert torch.equal(tensors["odd"].numbers(torch.float32), torch.from_numpy(numbers[:, :3].copy()))


@pytest.mark.parametrize("kind", [kind for kind in GGUF_READ if kind not in ("F32", "F16", "BF16")])
def test_any_bytes_stand_for_the_numbers_that_the_gguf_package_reads_in_them(tmp_path: Path, kind: str) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    generator = np.random.default_rng(1)
    blocks = generator.integers(0, 256, size=(4, 8 * block_bytes), dtype=np.uint8)
    path = write_gguf(tmp_path / "file.gguf", {"weight": random(4, 8 * block)}, lambda _: "F32")
    content = path.read_bytes()
    path.write_bytes(_retyped(content, kind) + blocks.tobytes() + bytes(32))

    tensor = open_file(path)["weight"]

    with np.errstate(invalid="ignore", over="ignore"):  # scales of any bytes may be none
        wanted = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert tensor.dtype == kind
    assert torch.equal(tensor.values, torch.from_numpy(blocks))
    np.testing.assert_allclose(tensor.numbers(torch.float32).numpy(), wanted, rtol=1e-5, equal_nan=True)
    np.testing.assert_allclose(
        tensor.rows([(3, 4), (0, 2)]).numbers(torch.float32).numpy(), wanted[[3, 0, 1]], rtol=1e-5, equal_nan=True
    )


def _retyped(content: bytes, kind: str) -> bytes:
    """The head of a file of one tensor in F32, when it says another type."""
    head = bytearray(content[: content.index(b"weight") + 6 + 4 + 16 + 4 + 8])
    head[-12:-8] = int(gguf.GGMLQuantizationType[kind]).to_bytes(4, "little")
    return bytes(head) + bytes(-len(head) % 32)


@pytest.mark.parametrize("kind", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize(
    "scales", [torch.tensor(0.5), torch.tensor([0.25]), torch.arange(1.0, 7.0), torch.arange(1.0, 7.0)[:, None]]
)
def test_fp8_is_multiplied_by_its_scale_and_rows_by_theirs(tmp_path: Path, kind: str, scales: torch.Tensor) -> None:
    values = torch.from_numpy(random(6, 32)).to(torch.float8_e4m3fn)
    beside = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn), "layer.scale_input": torch.tensor(7.0)}
    path = tmp_path / "file.safetensors"
    save_file({"layer.weight": values, f"layer.{kind}": scales, "layer.bias": torch.ones(6), **beside}, path)

    tensors = open_file(path)

    wanted = values.float() * scales.reshape(-1, 1)
    assert set(tensors) == {"layer.weight", "layer.bias"}
    assert torch.equal(tensors["layer.weight"].numbers(torch.float32), wanted)
    assert torch.equal(tensors["layer.weight"].rows([(4, 6), (1, 2)]).numbers(torch.float32), wanted[[4, 5, 1]])


@pytest.mark.parametrize(
    ("dtype", "byte"), [(torch.float8_e4m3fn, 0x7F), (torch.float8_e4m3fn, 0xFF), (torch.float8_e5m2, 0xFC)]
)
def test_fp8_that_is_no_number_is_refused_by_its_name(tmp_path: Path, dtype: torch.dtype, byte: int) -> None:
    path = tmp_path / "file.safetensors"
    whole = torch.full((4, 8), 0x78, dtype=torch.uint8)
    broken = whole.clone()
    broken[3, 7] = byte
    save_file({"good.weight": whole.view(dtype), "bad.weight": broken.view(dtype)}, path)
    tensors = open_file(path)

    tensors["good.weight"].check_finite()
    with pytest.raises(ModelLoadError, match=r"bad\.weight has numbers that are none"):
        tensors["bad.weight"].check_finite()


def test_a_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"weight": torch.zeros(64 * 1024, 1024)}, path)  # 256 MiB
    process = psutil.Process()
    before = process.memory_info().rss

    tensor = open_file(path)["weight"]
    part = tensor.rows([(1024, 64 * 1024)])

    assert process.memory_info().rss - before < 32 * 1024**2
    assert part.shape == (63 * 1024, 1024)
    assert part.num_bytes == 63 * 1024 * 4096


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layer.weight_scale_2": torch.ones(())}, "nvfp4"),
        ({"layer.weight.absmax": torch.ones(3)}, "bitsandbytes"),
        ({"layer.weight_scale_inv": torch.ones(1)}, "scales of an unknown kind"),
        ({"layer.output_scale": torch.ones(1)}, "scales of an unknown kind"),
        ({"other.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, "half converted"),
        ({"gone.scale_weight": torch.ones(())}, "half converted"),
        ({"layer.scale_weight": torch.ones(2, 2)}, "neither one scale nor one for each"),
        ({"layer.comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)}, "quantized as nvfp4"),
        ({"layer.comfy_quant": torch.zeros(8, dtype=torch.uint8)}, "quantized as None"),
    ],
)
def test_scales_that_are_not_understood_refuse_the_file(
    tmp_path: Path, more: dict[str, torch.Tensor], said: str
) -> None:
    path = tmp_path / "file.safetensors"
    weight = torch.ones(4, 4).to(torch.float8_e4m3fn)
    save_file({"layer.weight": weight, "layer.scale_weight": torch.ones(()), **more}, path)

    with pytest.raises(UnsupportedModel) as caught:
        open_file(path)

    assert caught.value.message.startswith(f"{path} ")
    assert said in caught.value.message


def test_comfy_s_note_of_the_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    note = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    weight = torch.ones(4, 4).to(torch.float8_e4m3fn)
    save_file({"a.weight": weight, "a.weight_scale": torch.tensor(3.0), "a.comfy_quant": note}, path)

    assert torch.equal(
        open_file(path)["a.weight"].numbers(torch.bfloat16), torch.full((4, 4), 3.0, dtype=torch.bfloat16)
    )


def test_a_type_of_gguf_that_is_not_read_refuses_the_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "file.gguf", {"weight": random(1, 256)})
    content = _retyped(path.read_bytes(), "IQ1_S")
    path.write_bytes(content + bytes(64))

    with pytest.raises(
        UnsupportedModel, match=r"has weight as IQ1_S, which is not read; read are F32, F16, BF16, Q8_0"
    ):
        open_file(path)


def test_packing_is_the_inverse_of_what_ggml_unpacks() -> None:
    numbers = random(2, 256)
    for kind in ("Q4_K", "Q5_K", "Q6_K"):
        blocks = np.frombuffer(packed(numbers, kind), np.uint8).reshape(2, -1)
        made = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
        assert np.abs(made - numbers).max() < 0.3
