"""A model's folder that is quantized once: the pictures of quantizing while loading, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from safelight.engine.engine import load_engine
from safelight.engine.families.loading import find_source, make_network
from safelight.engine.families.quantized_checkpoint import quantize_checkpoint
from safelight.engine.family import network_classes
from safelight.engine.weights.component_tensors import component_tensors
from safelight.engine.weights.quantized_files import plan_files
from safelight.errors import InvalidRequest, ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import check_checkpoint, read_model_spec, revision_of
from safelight.model.families.flux1 import FLUX1
from safelight.model.heads.own_format import METADATA
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.revision import DIGESTS
from safelight.settings import EngineOptions, Quantization
from tests.full_disk import no_file_grows
from tests.unit.engine.drive import paint

KINDS: tuple[Quantization, ...] = ("int8", "fp8", "nf4")
CPU = EngineOptions(device="cpu", dtype="float32")
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def quantize(folder: Path, out: Path, kind: Quantization, of_t5: Quantization | None = None) -> list[str]:
    return quantize_checkpoint(
        folder,
        out,
        spec=read_model_spec(folder),
        kinds={"transformer": kind, "text_encoder_2": of_t5 or kind},
        classes=network_classes(check_checkpoint(folder)),
        report=lambda *_: None,
    )


def while_loading(kind: Quantization, of_t5: Quantization | None = None) -> EngineOptions:
    return CPU.model_copy(update={"quantization": kind, "text_encoder_2_quantization": of_t5 or kind})


@pytest.fixture(scope="module")
def bf16_folder(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As FLUX.1 is published: in bf16, in shards."""
    folder = tmp_path_factory.mktemp("bf16") / "tiny"
    for path in tiny_flux_folder.rglob("*"):
        target = folder / path.relative_to(tiny_flux_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, target)
        elif path.is_file():
            target.write_bytes(path.read_bytes())
    weights = load_file(folder / TRANSFORMER)
    (folder / TRANSFORMER).unlink()
    names = sorted(weights)
    files = {name: f"diffusion_pytorch_model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, folder / "transformer" / file)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_quantizing_while_loading(kind: Quantization, bf16_folder: Path, tmp_path: Path) -> None:
    quantize(bf16_folder, tmp_path / "out", kind)

    pixels = paint(load_engine(tmp_path / "out", CPU))

    np.testing.assert_array_equal(pixels, paint(load_engine(bf16_folder, while_loading(kind))))
    assert not np.array_equal(pixels, paint(load_engine(bf16_folder, CPU)))


def test_the_text_encoder_may_become_something_else(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "nf4", "int8")

    pixels = paint(load_engine(tmp_path / "out", CPU))

    np.testing.assert_array_equal(pixels, paint(load_engine(tiny_flux_folder, while_loading("nf4", "int8"))))


def test_what_is_quantized_already_stays_as_it_is_and_is_named(tiny_flux_folder: Path, tmp_path: Path) -> None:
    assert quantize(tiny_flux_folder, tmp_path / "first", "int8", "none") == []

    assert quantize(tmp_path / "first", tmp_path / "second", "nf4", "fp8") == ["transformer"]

    parts = describe_parts(tmp_path / "second")
    assert {name: part.quantization for name, part in parts.items()} == {
        "transformer": "int8",
        "vae": None,
        "text_encoder": None,
        "text_encoder_2": "fp8",
    }
    assert (tmp_path / "second" / TRANSFORMER).read_bytes() == (tmp_path / "first" / TRANSFORMER).read_bytes()


def test_a_model_that_is_quantized_already_is_refused(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "first", "int8")

    with pytest.raises(UnsupportedModel, match="quantized already"):
        quantize(tmp_path / "first", tmp_path / "second", "nf4")

    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_shards_load_as_one_file_does(kind: Quantization, tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", kind)
    whole = paint(load_engine(tmp_path / "out", CPU))
    (tmp_path / "out" / TRANSFORMER).unlink()
    network = FLUX1.networks[0]
    source = find_source(tiny_flux_folder, network, network_classes(FLUX1))
    files = plan_files(lambda: make_network(source), component_tensors(tiny_flux_folder, network, {}), kind)
    assert files is not None

    list(files.write(tmp_path / "out" / "transformer", network.stem, shard_bytes=8000))

    sizes = [path.stat().st_size for path in (tmp_path / "out" / "transformer").glob("*.safetensors")]
    assert len(sizes) > 3
    np.testing.assert_array_equal(paint(load_engine(tmp_path / "out", CPU)), whole)


def test_other_libraries_read_the_files(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "int8")

    with safe_open(tmp_path / "out" / TRANSFORMER, framework="pt") as file:
        name = "transformer_blocks.0.attn.to_q.weight"
        numbers, scales = file.get_tensor(name), file.get_tensor(f"{name}_scale")
        metadata = file.metadata()

    weight = load_file(tiny_flux_folder / TRANSFORMER)[name]
    assert metadata[METADATA] == "int8"
    assert float((numbers * scales - weight).abs().max()) <= float(scales.max()) / 2 + 1e-6


def test_the_card_the_licence_and_what_the_sidecar_says_come_along(tiny_flux_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for path in tiny_flux_folder.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(tiny_flux_folder)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(tiny_flux_folder)).write_bytes(path.read_bytes())
    (folder / "LICENSE.md").write_text("Apache-2.0")
    (folder / "README.md").write_text("a card")

    quantize(folder, tmp_path / "out", "fp8")

    assert (tmp_path / "out" / "LICENSE.md").read_text() == "Apache-2.0"
    assert (tmp_path / "out" / "README.md").read_text() == "a card"
    assert read_model_spec(tmp_path / "out") == replace(read_model_spec(folder), name="out")


def test_what_a_picture_says_of_its_model_changes_with_the_weights(tiny_flux_folder: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        quantize(tiny_flux_folder, tmp_path / kind, kind)

    revisions = {revision_of(tmp_path / kind) for kind in KINDS} | {revision_of(tiny_flux_folder)}

    assert len(revisions) == 4


def test_a_digest_beside_a_file_holds_until_the_file_changes(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "int8")
    path, digests = tmp_path / "out" / TRANSFORMER, tmp_path / "out" / "transformer" / DIGESTS
    recorded = revision_of(tmp_path / "out")
    content = digests.read_bytes()
    digests.unlink()
    assert revision_of(tmp_path / "out") == recorded
    digests.write_bytes(content)

    path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    assert revision_of(tmp_path / "out") != recorded


def test_a_disk_without_room_is_found_out_before(
    tiny_flux_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    with pytest.raises(InvalidRequest, match="too small: 0 MB are written"):
        quantize(tiny_flux_folder, tmp_path / "out", "int8")

    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tiny_flux_folder: Path, tmp_path: Path) -> None:
    with no_file_grows(), pytest.raises(ModelLoadError, match="cannot be written: File too large"):
        quantize(tiny_flux_folder, tmp_path / "out", "int8")

    assert list(tmp_path.iterdir()) == []


def test_a_write_that_is_broken_off_leaves_nothing(tiny_flux_folder: Path, tmp_path: Path) -> None:
    def report(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(
            tiny_flux_folder,
            tmp_path / "out",
            spec=read_model_spec(tiny_flux_folder),
            kinds={"transformer": "int8"},
            classes=network_classes(FLUX1),
            report=report,
        )

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out", ".out.unfinished"])
def test_what_is_there_is_not_written_over(name: str, tiny_flux_folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")

    with pytest.raises(InvalidRequest, match="is there"):
        quantize(tiny_flux_folder, tmp_path / "out", "int8")

    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def _with_tensors(path: Path, change: Callable[[dict[str, Tensor]], object], metadata: dict[str, str] | None) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


NAME = "transformer_blocks.0.attn.to_q.weight"
MARK = {METADATA: "int8"}
BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], object], dict[str, str] | None, str]] = {
    "a scale is gone": (lambda each: each.pop(f"{NAME}_scale"), MARK, "without scales"),
    "a weight is gone": (lambda each: each.pop(NAME), MARK, "without its weight"),
    "a scale of too few rows": (
        lambda each: each.update({f"{NAME}_scale": each[f"{NAME}_scale"][:-1].clone()}),
        MARK,
        "not of that weight",
    ),
    "a scale in half": (
        lambda each: each.update({f"{NAME}_scale": each[f"{NAME}_scale"].half()}),
        MARK,
        "not of that weight",
    ),
    "a weight of another shape": (
        lambda each: each.update({NAME: each[NAME][:, :-2].clone()}),
        MARK,
        "in another shape",
    ),
    "a scale beside plain numbers": (
        lambda each: each.update({"x_embedder.weight_scale": each[f"{NAME}_scale"].clone()}),
        MARK,
        "has scales for x_embedder.weight, which is F32",
    ),
    "one weight more": (
        lambda each: each.update({"other.weight": each["x_embedder.bias"].clone()}),
        MARK,
        "other.weight",
    ),
    "another kind": (lambda _: None, {METADATA: "nf4"}, "is not quantized as int8"),
    "no mark": (lambda _: None, None, "is not quantized as int8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_name(case: str, tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "int8")
    change, metadata, message = BROKEN[case]
    _with_tensors(tmp_path / "out" / TRANSFORMER, change, metadata)

    with pytest.raises(ModelLoadError, match=message) as caught:
        load_engine(tmp_path / "out", CPU)

    assert str(tmp_path / "out" / "transformer") in caught.value.message


def test_weights_that_stand_alone_are_refused_without_their_config(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "int8")
    (tmp_path / "out" / "transformer" / "config.json").write_bytes(
        (tiny_flux_folder / "transformer" / "config.json").read_bytes()
    )

    with pytest.raises(UnsupportedModel, match="quantized"):
        load_engine(tmp_path / "out", CPU)


def test_a_kind_of_another_version_is_refused_before_anything_is_read(tiny_flux_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_flux_folder, tmp_path / "out", "int8")
    path = tmp_path / "out" / "transformer" / "config.json"
    path.write_text(path.read_text().replace('"int8"', '"int3"'))

    with pytest.raises(UnsupportedModel, match="'int3'; read are int8, fp8, nf4"):
        check_checkpoint(tmp_path / "out")
