"""A picture with LoRAs is FluxPipeline's with the same, and is the one alone whatever shares its batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file

from safelight.engine.engine import Engine, load_engine
from safelight.errors import ModelLoadError
from safelight.model.checkpoint import read_model_spec
from safelight.model.loras import locate_loras
from safelight.model.spec import LoraFile
from safelight.settings import EngineOptions
from tests.tiny_loras import save_kohya_lora, save_lora
from tests.unit.engine.drive import denoise, finish, paint, start
from tests.unit.engine.test_same_seed import _has_stable_products

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

GUIDED = {"negative_prompt": "a blue dog", "true_cfg_scale": 3.0}
Lora = tuple[str, float]


@pytest.fixture(scope="session")
def lora_files(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    kohya = save_kohya_lora(folder / "kohya.safetensors")
    return {
        "plain": save_lora(folder / "plain", base=tiny_flux_folder, seed=1),
        "scaled": save_lora(
            folder / "scaled", base=tiny_flux_folder, seed=2, lora_alpha=2, alpha_pattern={"to_q": 7}, use_rslora=True
        ),
        "clip": save_lora(folder / "clip", base=tiny_flux_folder, seed=3, has_clip=True),
        "kohya": kohya,
    }


@pytest.fixture(scope="session")
def load(tiny_flux_folder: Path, lora_files: dict[str, Path]) -> Callable[..., Engine]:
    def load(files: dict[str, Path] | Sequence[LoraFile] = lora_files, **options: Any) -> Engine:
        if isinstance(files, dict):
            files = [LoraFile(name=name, file=str(file)) for name, file in files.items()]
        loras = tuple(files)
        spec = replace(read_model_spec(tiny_flux_folder), loras=loras)
        return load_engine(
            tiny_flux_folder, EngineOptions(**{"device": "cpu", "dtype": "float32"} | options), spec=spec
        )

    return load


@pytest.fixture(scope="session")
def lora_engine(load: Callable[..., Engine]) -> Engine:
    return load()


@pytest.fixture(params=["float32", "bfloat16"])
def any_engine(request: pytest.FixtureRequest, load: Callable[..., Engine]) -> Engine:
    return load(dtype=request.param)


@pytest.mark.parametrize(
    "loras",
    [
        [("plain", 1.0)],
        [("plain", -0.7)],
        [("scaled", 0.8)],
        [("clip", 1.0)],
        [("kohya", 1.5)],
        [("clip", 0.5), ("kohya", 1.0), ("plain", 0.3)],
    ],
    ids=str,
)
@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
def test_a_picture_with_loras_is_the_pipelines(
    lora_engine: Engine,
    lora_files: dict[str, Path],
    tiny_flux_folder: Path,
    loras: list[Lora],
    guidance: dict[str, Any],
) -> None:
    pipeline = FluxPipeline.from_pretrained(tiny_flux_folder)
    pipeline.set_progress_bar_config(disable=True)
    for name, _ in loras:
        pipeline.load_lora_weights(lora_files[name], adapter_name=name)
    pipeline.set_adapters([name for name, _ in loras], [scale for _, scale in loras])
    expected = pipeline(
        "a red cat",
        num_inference_steps=4,
        width=96,
        height=64,
        max_sequence_length=64,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
        **guidance,
    ).images[0]

    pixels = paint(lora_engine, width=96, num_inference_steps=4, loras=loras, **guidance)

    assert np.abs(pixels.astype(int) - np.round(expected * 255).astype(int)).max() <= 1
    assert not np.array_equal(pixels, paint(lora_engine, width=96, num_inference_steps=4, **guidance))


def test_in_a_mixed_batch_every_picture_is_the_one_alone(any_engine: Engine) -> None:
    if not _has_stable_products():
        pytest.skip("this machine's matrix product rounds a row differently with the number of rows")
    requests: list[dict[str, Any]] = [
        {"loras": [("plain", 1.0)]},
        {},
        {"loras": [("plain", 0.5)], "num_inference_steps": 6},
        {"loras": [("clip", 1.0), ("scaled", -1.0)], **GUIDED},
        {**GUIDED},
        {"loras": [("kohya", 2.0), ("plain", 1.0)], "seed": 8},
    ]
    alone = [start(any_engine, **request) for request in requests]
    for generation in alone:
        denoise(any_engine, generation)

    batch = [start(any_engine, **request) for request in requests]
    denoise(any_engine, *batch)

    for generation, expected in zip(batch, alone, strict=True):
        latents = any_engine._denoising[generation].latents
        assert torch.equal(latents, any_engine._denoising[expected].latents)
        assert np.array_equal(any_engine.decode(generation), any_engine.decode(expected))


def test_a_lora_leaves_nothing_behind(load: Callable[..., Engine], engine: Engine) -> None:
    lora_engine = load()
    paint(lora_engine, loras=[("clip", 1.0), ("plain", 1.0)])

    assert np.array_equal(paint(lora_engine), paint(engine))


def test_a_lora_of_scale_0_changes_nothing(lora_engine: Engine, engine: Engine) -> None:
    assert np.array_equal(paint(lora_engine, loras=[("clip", 0.0)]), paint(engine))


def test_a_lora_that_was_forgotten_is_read_again(load: Callable[..., Engine], lora_files: dict[str, Path]) -> None:
    engine = load({name: lora_files[name] for name in ("plain", "clip")})
    nbytes = engine._loras._kept.nbytes
    small = load({name: lora_files[name] for name in ("plain", "clip")}, lora_cache_bytes=nbytes - 1)

    pictures = [paint(small, loras=[(name, 1.0)]) for name in ("plain", "clip", "plain")]

    assert small._loras._kept.nbytes < nbytes
    assert np.array_equal(pictures[0], pictures[2])
    assert np.array_equal(pictures[1], paint(engine, loras=[("clip", 1.0)]))


def test_without_a_cache_a_running_picture_keeps_its_lora(load: Callable[..., Engine], lora_engine: Engine) -> None:
    engine = load(lora_cache_bytes=0)
    running = [start(engine, loras=[(name, 1.0)]) for name in ("plain", "clip")]

    denoise(engine, *running)

    assert np.array_equal(finish(engine, running[0]), paint(lora_engine, loras=[("plain", 1.0)]))


def test_pictures_in_progress_share_a_lora_that_is_not_kept(
    load: Callable[..., Engine], lora_files: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "here.safetensors"
    save_file(load_file(lora_files["plain"]), file)
    engine = load({"here": file}, lora_cache_bytes=0)
    first = start(engine, loras=[("here", 1.0)])
    file.unlink()

    second = start(engine, loras=[("here", 0.5)])  # without its file: it can only be the one in memory
    for generation in (first, second):
        engine.release(generation)

    with pytest.raises(ModelLoadError, match="here"):
        start(engine, loras=[("here", 1.0)])


@pytest.mark.parametrize("other", ["kohya", None], ids=["replaced", "removed"])
def test_a_lora_whose_file_is_not_the_same_any_more_is_refused(
    load: Callable[..., Engine],
    lora_files: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    other: str | None,
) -> None:
    file = tmp_path / "here.safetensors"
    file.write_bytes(lora_files["plain"].read_bytes())
    engine = load(locate_loras([f"film={file}"]), lora_cache_bytes=0)
    paint(engine, loras=[("film", 1.0)])
    file.unlink()
    if other is not None:
        file.write_bytes(lora_files[other].read_bytes())

    with pytest.raises(ModelLoadError, match="LoRA 'film' cannot be used") as caught:
        start(engine, loras=[("film", 1.0)])

    assert "here" not in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert str(file) in caplog.text
    file.write_bytes(lora_files["plain"].read_bytes())
    paint(engine, loras=[("film", 1.0)])


def test_a_file_that_changed_before_it_was_read_is_refused(
    load: Callable[..., Engine], lora_files: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "here.safetensors"
    file.write_bytes(lora_files["plain"].read_bytes())
    loras = locate_loras([f"film={file}"])
    file.write_bytes(lora_files["clip"].read_bytes())

    with pytest.raises(ModelLoadError, match=r"here\.safetensors has changed since the server started"):
        load(loras)


@pytest.mark.parametrize("start", ["transformer.\x1b[2Jlayer", "transformer.a\nb", "\x1b[2J", "a" * 10_000])
def test_names_in_a_file_do_not_move_the_cursor(load: Callable[..., Engine], tmp_path: Path, start: str) -> None:
    file = tmp_path / "odd.safetensors"
    save_file({f"{start}.lora_A.weight": torch.ones(4, 32), f"{start}.lora_B.weight": torch.ones(32, 4)}, file)

    with pytest.raises(ModelLoadError) as caught:
        load({"odd": file})

    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 2000


def test_layers_that_the_model_does_not_have_are_named(load: Callable[..., Engine], tmp_path: Path) -> None:
    file = save_kohya_lora(tmp_path / "odd.safetensors")
    names = {f"lora_unet_stranger_{index}.lora_{part}.weight" for index in range(99) for part in ("down", "up")}
    save_file(load_file(file) | {name: torch.ones(2, 2) for name in names}, file)

    with pytest.raises(ModelLoadError, match=r"lora_unet_stranger_\d+\.lora_\w+\.weight reaches no") as caught:
        load({"odd": file})

    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: _resize(tensors, "attn.to_q.lora_A.weight", (4, 31)), "lora_A.weight is 4x31, not 4x32"),
        (lambda tensors: _resize(tensors, "attn.to_q.lora_B.weight", (32, 5)), "lora_B.weight is 32x5, not 32x4"),
        (lambda tensors: _rename(tensors, "transformer_blocks.0", "transformer_blocks.9"), "blocks.9.attn"),
        (lambda tensors: _rename(tensors, "lora_B", "lora_C"), "is no part of a LoRA"),
        (lambda tensors: _rename(tensors, "transformer.", "unet."), "unet.proj_out.lora_A.weight reaches no layer"),
        (lambda tensors: _rename(tensors, "transformer.", "text_encoder_2."), "holds T5 weights"),
        (lambda tensors: _rename(tensors, "lora_A", "lora_magnitude_vector"), "holds a DoRA's magnitudes"),
        (lambda tensors: {"weight": torch.ones(1)}, "holds no LoRA, but whole weights"),
        (lambda tensors: _fill(tensors, "to_q.lora_B.weight", float("nan")), "to_q is NaN or infinite in float32"),
        (lambda tensors: {name: each.int() for name, each in tensors.items()}, "is made of I32, not of floating"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_names(
    load: Callable[..., Engine],
    lora_files: dict[str, Path],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    expected: str,
) -> None:
    file = tmp_path / "other.safetensors"
    save_file(change(load_file(lora_files["plain"])), file)

    with pytest.raises(ModelLoadError) as caught:
        load({"other": file})

    assert expected in caught.value.message
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        ("transformer_blocks.0.attn.to_q", 3072, "is a LoRA for FLUX.1 in its full width"),
        ("x_embedder", 128, "transformer.x_embedder.lora_A.weight is 4x128, not 4x16"),
    ],
)
def test_a_lora_for_a_larger_flux_is_refused_as_one(
    load: Callable[..., Engine], tmp_path: Path, layer: str, inputs: int, expected: str
) -> None:
    file, name = tmp_path / "large.safetensors", f"transformer.{layer}"
    save_file({f"{name}.lora_A.weight": torch.ones(4, inputs), f"{name}.lora_B.weight": torch.ones(3072, 4)}, file)

    with pytest.raises(ModelLoadError) as caught:
        load({"large": file})

    assert expected in caught.value.message


@pytest.mark.parametrize("setting", [{"alpha_pattern": {"(": 1}}, {"lora_alpha": "much"}, {"alpha_pattern": 3}])
def test_a_file_whose_settings_make_no_sense_is_refused(
    load: Callable[..., Engine], lora_files: dict[str, Path], tmp_path: Path, setting: dict[str, Any]
) -> None:
    file = tmp_path / "odd.safetensors"
    metadata = {f"transformer.{name}": value for name, value in setting.items()}
    save_file(load_file(lora_files["plain"]), file, metadata={"lora_adapter_metadata": json.dumps(metadata)})

    with pytest.raises(ModelLoadError, match=r"odd\.safetensors is no LoRA"):
        load({"odd": file})


def test_a_file_whose_alpha_is_no_number_is_refused(
    load: Callable[..., Engine], lora_files: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "odd.safetensors"
    metadata = {"transformer.lora_alpha": float("nan")}
    save_file(load_file(lora_files["plain"]), file, metadata={"lora_adapter_metadata": json.dumps(metadata)})

    with pytest.raises(ModelLoadError, match="is NaN or infinite"):
        load({"odd": file})


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"{}" * 100])
def test_a_file_that_is_no_safetensors_is_refused(load: Callable[..., Engine], tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)

    with pytest.raises(ModelLoadError, match=r"broken\.safetensors is no safetensors file"):
        load({"broken": file})


def _fill(tensors: dict[str, Any], ending: str, value: float) -> dict[str, Any]:
    return {name: each.fill_(value) if name.endswith(ending) else each for name, each in tensors.items()}


def _resize(tensors: dict[str, Any], ending: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {name: torch.ones(shape) if name.endswith(ending) else each for name, each in tensors.items()}


def _rename(tensors: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {name.replace(old, new): each for name, each in tensors.items()}
