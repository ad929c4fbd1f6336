"""The plan of a model that is files: told from their heads, what they lack as it lies elsewhere; nothing is fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from safelight.model.catalog import Model
from safelight.model.file_sets import GivenFiles, assemble
from tests.single_files import (
    as_bfl,
    config_of,
    prefixed,
    save,
    scaled_fp8,
    with_gated_t5,
    write_all_in_one,
    write_ggufs,
    write_single_files,
)
from tests.tiny_loras import save_lora
from tests.true_heads import (
    bfl_shapes,
    llama_t5_shapes,
    part_shapes,
    save_gguf_shapes,
    save_shapes,
    save_true_flux,
    true_shapes,
)
from tests.unit.cli.models.conftest import Run

FLUX = "black-forest-labs-flux.1-schnell"
ON_48_GB = ("--plan", "--device", "cuda", "--memory", "48GB", "-o", "json")
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="session")
def checkpoint(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_gated_t5(tiny_flux_folder, tmp_path_factory.mktemp("gated") / "tiny")


def placed(run: Run, *arguments: str) -> Mapping[str, tuple[str, float]]:
    """Component -> its precision, and its gigabytes to a tenth."""
    status, out, err = run(*arguments)
    assert status == 0, err
    parts = json.loads(out)["components"]
    return {each["name"]: (each["precision"], round(each["num_bytes"] / 1e9, 1)) for each in parts}


def all_in_one(path: Path, dtype: str) -> Path:
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in bfl_shapes().items()}
    for component, prefix in (("vae", "vae."), ("text_encoder", "text_encoders.clip_l.transformer.")):
        shapes |= {prefix + name: shape for name, shape in part_shapes(component).items()}
    shapes |= {
        f"text_encoders.t5xxl.transformer.{name}": shape for name, shape in part_shapes("text_encoder_2").items()
    }
    return save_shapes(path, shapes, dtype)


def with_scales(shapes: Shapes) -> Shapes:
    matrices = [name for name, shape in shapes.items() if len(shape) == 2 and name.endswith(".weight")]
    return shapes | {name.removesuffix("weight") + "scale_weight": () for name in matrices}


def diffusers_shapes() -> Shapes:
    return dict(true_shapes("transformer"))


PUBLISHED = {"transformer": ("BF16", 23.8), "vae": ("BF16", 0.2), "text_encoder": ("BF16", 0.2)}
PUBLISHED |= {"text_encoder_2": ("BF16", 9.5)}
TRUE_FILES: Mapping[str, tuple[Callable[[Path], Path], Mapping[str, tuple[str, float]]]] = {
    "BFL's": (lambda place: save_shapes(place / "flux.safetensors", bfl_shapes()), {}),
    "diffusers'": (lambda place: save_shapes(place / "flux.safetensors", diffusers_shapes()), {}),
    "fp8": (
        lambda place: save_shapes(place / "flux.sft", bfl_shapes(), "F8_E4M3"),
        {"transformer": ("F8_E4M3", 11.9)},
    ),
    "scaled fp8": (
        lambda place: save_shapes(
            place / "flux.safetensors",
            with_scales(bfl_shapes()),
            "F8_E4M3",
            scale="BF16",
            bias="BF16",
            scale_weight="F32",
        ),
        {"transformer": ("F8_E4M3 with scales", 11.9)},
    ),
    "all in one": (
        lambda place: all_in_one(place / "flux.safetensors", "F8_E4M3"),
        {
            "transformer": ("F8_E4M3", 11.9),
            "vae": ("F8_E4M3", 0.1),
            "text_encoder": ("F8_E4M3", 0.1),
            "text_encoder_2": ("F8_E4M3", 4.8),
        },
    ),
    "GGUF Q8_0": (
        lambda place: save_gguf_shapes(place / "flux.gguf", bfl_shapes(), "Q8_0"),
        {"transformer": ("Q8_0", 12.6)},
    ),
    "GGUF Q4_K": (
        lambda place: save_gguf_shapes(place / "flux.gguf", bfl_shapes(), "Q4_K"),
        {"transformer": ("Q4_K", 6.7)},
    ),
}


@pytest.mark.parametrize("kind", TRUE_FILES)
def test_a_file_of_the_true_size_is_planned_with_what_is_published_for_the_rest(
    run: Run, kind: str, tmp_path: Path
) -> None:
    write, expected = TRUE_FILES[kind]

    assert placed(run, str(write(tmp_path)), *ON_48_GB) == PUBLISHED | dict(expected)


def test_a_file_that_says_no_more_than_the_catalogue_makes_its_plan(run: Run, tmp_path: Path) -> None:
    file = save_shapes(tmp_path / "flux1-schnell.safetensors", bfl_shapes())

    for memory in ("48GB", "16GB", "8GB"):
        options = ("--plan", "--device", "cuda", "--memory", memory, "-o", "json")
        assert run(str(file), *options) == run(FLUX, *options)


def test_each_part_may_be_a_file_of_its_own(run: Run, tmp_path: Path) -> None:
    model = save_gguf_shapes(tmp_path / "flux.gguf", bfl_shapes(), "Q4_K")
    t5 = save_gguf_shapes(tmp_path / "t5.gguf", llama_t5_shapes(), "Q8_0", "t5encoder")
    clip = save_shapes(tmp_path / "clip_l.safetensors", part_shapes("text_encoder"), "F16")
    vae = save_shapes(tmp_path / "ae.safetensors", part_shapes("vae"), "F32")
    parts = ("--text-encoder-2", str(t5), "--text-encoder", str(clip), "--vae", str(vae))

    assert placed(run, str(model), *parts, "--plan", "--device", "cuda", "--memory", "12GB", "-o", "json") == {
        "transformer": ("Q4_K", 6.7),
        "vae": ("16 bits", 0.2),
        "text_encoder": ("F16", 0.2),
        "text_encoder_2": ("Q8_0", 5.1),
    }


def test_a_part_takes_the_place_of_a_models_own(run: Run, tmp_path: Path) -> None:
    t5 = save_gguf_shapes(tmp_path / "t5.gguf", llama_t5_shapes(), "Q8_0", "t5encoder")
    folder = save_true_flux(tmp_path / "flux")

    for model in (FLUX, str(folder)):
        assert placed(run, model, "--text-encoder-2", str(t5), *ON_48_GB) == PUBLISHED | {
            "text_encoder_2": ("Q8_0", 5.1)
        }


def test_what_a_file_has_is_not_said_to_be_brought_back_from_what_it_is_not(run: Run, tmp_path: Path) -> None:
    model = save_gguf_shapes(tmp_path / "flux.gguf", bfl_shapes(), "Q4_K")
    t5 = save_gguf_shapes(tmp_path / "t5.gguf", llama_t5_shapes(), "Q8_0", "t5encoder")
    asked = ("--quantization", "int8", "--text-encoder-2-quantization", "int8")

    slower = json.loads(run(str(model), "--text-encoder-2", str(t5), *asked, *ON_48_GB)[1])["slower"]

    assert not [each for each in slower if "int8" in each]


def tiny_files(kind: str, checkpoint: Path, place: Path) -> dict[str, Path]:
    if kind == "all in one":
        return {"transformer": write_all_in_one(checkpoint, place / "all.safetensors")}
    if kind == "scaled fp8":
        return write_single_files(checkpoint, place, scaled_fp8)
    if kind == "ComfyUI's":
        tensors = as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer"))
        return {"transformer": save(place / "comfy.safetensors", prefixed(tensors, "model.diffusion_model."))}
    return write_single_files(checkpoint, place) if kind == "BFL's" else write_ggufs(checkpoint, place, kind)


@pytest.mark.parametrize("kind", ["BFL's", "ComfyUI's", "all in one", "scaled fp8", "Q8_0", "Q4_0"])
def test_the_plan_of_files_is_that_of_the_folder_that_is_made_of_them(
    run: Run, kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    files = tiny_files(kind, checkpoint, tmp_path)
    parts = {name: path for name, path in files.items() if name != "transformer"}
    given = GivenFiles(model=files["transformer"], parts=parts, base=Model(name="tiny", folder=checkpoint))
    options = [each for name, path in parts.items() for each in (f"--{name.replace('_', '-')}", str(path))]

    of_files = run(str(files["transformer"]), "--components", str(checkpoint), *options, *ON_48_GB)
    of_folder = run(str(assemble(given, tmp_path / "sets", NoHub())), *ON_48_GB)

    assert of_files[0] == 0, of_files[2]
    assert of_files == of_folder


class NoHub:
    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")


def test_a_file_in_the_hubs_cache_is_planned_and_one_that_is_not_is_not_fetched(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--acme--gguf" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = tmp_path / "hub" / "models--acme--gguf" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    save_gguf_shapes(snapshot / "flux-Q4_K_S.gguf", bfl_shapes(), "Q4_K")

    here = placed(run, "acme/gguf/flux-Q4_K_S.gguf", *ON_48_GB)
    status, out, err = run("acme/gguf/flux-Q8_0.gguf", *ON_48_GB)

    assert here["transformer"] == ("Q4_K", 6.7)
    assert (status, out) == (1, "")
    assert "fetch them with: hf download acme/gguf flux-Q8_0.gguf" in err
    assert len(err.splitlines()) == 1


def broken(kind: str, checkpoint: Path, place: Path) -> tuple[Any, ...]:
    files = write_single_files(checkpoint, place)
    whole = files["transformer"].read_bytes()
    (place / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    shutil.copy(files["transformer"], place / "renamed.gguf")
    base = ("--components", checkpoint)
    cases: dict[str, Callable[[], tuple[Any, ...]]] = {
        "cut": lambda: (place / "cut.safetensors", *base),
        "renamed": lambda: (place / "renamed.gguf", *base, "--vae", files["transformer"]),
        "vae": lambda: (files["vae"], *base),
        "lora": lambda: (save_lora(place / "film", base=checkpoint, seed=1), *base),
        "foreign": lambda: (save(place / "sd.safetensors", {"a.b": torch.zeros(2)}), *base),
        "true components": lambda: (files["transformer"],),
        "folder": lambda: (checkpoint, *base),
        "missing": lambda: (place / "gone.gguf",),
        "uncached base": lambda: (files["transformer"], "--components", "acme/flux"),
    }
    return cases[kind]()


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("cut", "cut.safetensors cannot be read: its weights are not whole"),
        ("renamed", "holds FLUX.1's transformer, not its autoencoder"),
        ("vae", "holds FLUX.1's autoencoder (VAE), and no transformer"),
        ("lora", "LoRA"),
        ("foreign", "holds no part of FLUX.1"),
        ("true components", "and FLUX.1's have 128: it is another model"),
        ("folder", "--components goes with a model that is a file"),
        ("missing", "there is no such file or folder"),
        ("uncached base", "fetch them with: hf download acme/flux"),
    ],
)
def test_files_that_make_no_model_are_refused_in_one_line(
    run: Run, kind: str, named: str, checkpoint: Path, tmp_path: Path
) -> None:
    status, out, err = run(*map(str, broken(kind, checkpoint, tmp_path)), *ON_48_GB)

    assert status != 0
    assert out == ""
    assert named in err
    assert len(err.splitlines()) == 1


def test_files_are_named_for_a_plan_only(run: Run, checkpoint: Path) -> None:
    status, out, err = run(str(checkpoint), "--vae", "ae.safetensors")

    assert (status, out) == (1, "")
    assert "go with --plan" in err
