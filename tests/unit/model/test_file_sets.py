"""Files as people have them become a checkpoint's folder: what they lack is found, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.catalog import Model
from safelight.model.checkpoint import check_checkpoint, read_model_spec, revision_of
from safelight.model.file_sets import GivenFiles, assemble
from safelight.model.memory.stored_parts import describe_parts
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
from tests.slim_flux import save_slim_flux
from tests.true_heads import bfl_shapes, part_shapes, save_gguf_shapes, save_shapes


class NoHub:
    """Whoever asks it has asked the hub."""

    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        raise AssertionError(f"{components} were asked for")

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        raise AssertionError(f"{hub_id} was asked for")


class PublicTokenizers(NoHub):
    """The only thing that it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        place = self.folder / hub_id
        place.mkdir(parents=True, exist_ok=True)
        (place / "tokenizer_config.json").write_text("{}")
        return place


@pytest.fixture(scope="session")
def checkpoint(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_gated_t5(tiny_flux_folder, tmp_path_factory.mktemp("gated") / "tiny")


def base(folder: Path) -> Model:
    return Model(name="tiny", folder=folder)


def refusal(given: GivenFiles, tmp_path: Path) -> str:
    with pytest.raises((UnsupportedModel, ModelLoadError)) as caught:
        assemble(given, tmp_path / "sets", NoHub())
    assert "\n" not in caught.value.message
    assert not list((tmp_path / "sets").glob("*"))
    return caught.value.message


def test_a_gguf_and_a_folder_for_the_rest_become_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    files = write_ggufs(checkpoint, tmp_path / "files", "Q8_0")
    given = GivenFiles(
        model=files["transformer"], parts={"text_encoder_2": files["text_encoder_2"]}, base=base(checkpoint)
    )

    folder = assemble(given, tmp_path / "sets", NoHub())

    check_checkpoint(folder)
    spec, parts = read_model_spec(folder), describe_parts(folder)
    assert spec.name == "flux1-tiny-q8_0"
    assert spec.default_width == 64
    assert config_of(folder, "transformer")["num_layers"] == 1
    assert {name: (part.format, part.quantization) for name, part in parts.items()} == {
        "transformer": ("gguf (BFL)", "q8_0"),
        "vae": ("safetensors", None),
        "text_encoder": ("safetensors", None),
        "text_encoder_2": ("gguf (llama.cpp)", "q8_0"),
    }
    assert parts["transformer"].files == (str(files["transformer"]),)
    assert all(
        path.is_symlink() for path in folder.glob("*/*") if path.name not in ("config.json", "scheduler_config.json")
    )


def test_of_an_all_in_one_each_part_counts_its_own_weights(checkpoint: Path, tmp_path: Path) -> None:
    whole = write_all_in_one(checkpoint, tmp_path / "all.safetensors")
    own = assemble(GivenFiles(model=whole, base=base(checkpoint)), tmp_path / "sets", NoHub())

    wanted = {name: part.num_parameters for name, part in describe_parts(checkpoint).items()}

    assert {name: part.num_parameters for name, part in describe_parts(own).items()} == wanted


def test_the_same_files_are_the_same_folder_until_one_is_written_anew(checkpoint: Path, tmp_path: Path) -> None:
    file = write_all_in_one(checkpoint, tmp_path / "all.safetensors")
    given = GivenFiles(model=file, base=base(checkpoint))
    first = assemble(given, tmp_path / "sets", NoHub())
    revision = revision_of(first)
    (first / "seen").touch()

    assert assemble(given, tmp_path / "sets", NoHub()) == first
    assert (first / "seen").exists()

    os.utime(file, ns=(1, 1))
    second = assemble(given, tmp_path / "sets", NoHub())
    assert second != first
    assert revision_of(second) == revision


@pytest.mark.parametrize(
    "key",
    [
        *("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim"),
        *("axes_dims_rope", "num_layers", "guidance_embeds", "_class_name"),
    ],
)
def test_whatever_the_config_of_a_base_says_is_used_or_refused_in_a_sentence(
    checkpoint: Path, tmp_path: Path, key: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "base")
    whole = config_of(folder, "transformer")
    parts = write_single_files(checkpoint, tmp_path / "files")
    model = parts.pop("transformer")
    of_all, of_parts = (
        GivenFiles(model=model, parts=parts, base=base(folder)),
        GivenFiles(parts=parts, base=base(folder)),
    )

    for number, value in enumerate([None, "x", [], {}, -1, 10**400, float("nan"), [[], [], []], "gone"]):
        changed = {name: each for name, each in whole.items() if name != key}
        if value != "gone":
            changed[key] = value
        (folder / "transformer" / "config.json").write_text(json.dumps(changed))
        for given in (of_all, of_parts):
            with suppress(ModelLoadError):
                assemble(given, tmp_path / f"sets{number}", NoHub())


def test_what_lies_beside_a_checkpoint_in_its_folder_is_not_looked_at(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "home")
    given = GivenFiles(model=write_all_in_one(checkpoint, tmp_path / "all.safetensors"), base=base(folder))
    first = assemble(given, tmp_path / "sets", NoHub())

    (folder / "photographs" / "of the sea").mkdir(parents=True)
    (folder / "photographs" / "of the sea" / "1.png").write_text("blue")
    (folder / "notes.txt").write_text("buy bread")

    assert assemble(given, tmp_path / "sets", NoHub()) == first


def test_a_file_may_have_a_name_as_long_as_any(checkpoint: Path, tmp_path: Path) -> None:
    file = write_all_in_one(checkpoint, tmp_path / f"{'ü' * 120}.safetensors")

    folder = assemble(GivenFiles(model=file, base=base(checkpoint)), tmp_path / "sets", NoHub())

    assert read_model_spec(folder).name == "ü" * 48


def test_a_file_may_be_called_whatever_a_disk_allows(checkpoint: Path, tmp_path: Path) -> None:
    file = write_all_in_one(checkpoint, tmp_path / "all.safetensors")
    odd = file.rename(tmp_path / f"{os.fsdecode(bytes([255]))}\n[bold].safetensors")

    folder = assemble(GivenFiles(model=odd, base=base(checkpoint)), tmp_path / "sets", NoHub())

    assert read_model_spec(folder).name == "--[bold]"
    assert revision_of(folder).startswith("sha256:")
    assert [path.name for path in (folder / "transformer").iterdir() if path.is_symlink()] == ["--[bold].safetensors"]


def test_a_file_of_a_checkpoint_may_be_called_so_too(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "flux")
    weights = next((folder / "vae").glob("*.safetensors"))
    weights.rename(weights.with_name(f"{os.fsdecode(bytes([255]))}.safetensors"))

    assert revision_of(folder).startswith("sha256:")


def test_a_folder_whose_links_lead_nowhere_is_made_anew(checkpoint: Path, tmp_path: Path) -> None:
    given = GivenFiles(model=write_all_in_one(checkpoint, tmp_path / "all.safetensors"), base=base(checkpoint))
    folder = assemble(given, tmp_path / "sets", NoHub())
    link = next((folder / "vae").glob("*.safetensors"))
    link.unlink()
    link.symlink_to(tmp_path / "gone.safetensors")

    assert assemble(given, tmp_path / "sets", NoHub()) == folder
    assert link.exists()
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [folder.name]


def test_a_part_takes_the_place_of_a_checkpoint_s_own(checkpoint: Path, tmp_path: Path) -> None:
    files = write_ggufs(checkpoint, tmp_path / "files", "Q4_0")

    folder = assemble(
        GivenFiles(parts={"text_encoder_2": files["text_encoder_2"]}, base=base(checkpoint)), tmp_path / "sets", NoHub()
    )

    assert describe_parts(folder)["text_encoder_2"].dtype == "Q4_0"
    assert describe_parts(folder)["transformer"].files == (
        str(checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"),
    )


def test_a_base_needs_no_more_than_what_the_files_lack(tmp_path: Path) -> None:
    checkpoint = save_slim_flux(tmp_path / "slim")
    partial = shutil.copytree(checkpoint, tmp_path / "partial")
    for gone in ("transformer", "vae", "text_encoder", "scheduler"):
        shutil.rmtree(partial / gone)
    (partial / "model_index.json").unlink()
    files = write_single_files(checkpoint, tmp_path / "files")
    parts = {name: files[name] for name in ("vae", "text_encoder")}

    folder = assemble(
        GivenFiles(model=files["transformer"], parts=parts, base=base(partial)), tmp_path / "sets", NoHub()
    )

    check_checkpoint(folder)
    assert describe_parts(folder)["text_encoder_2"].files == (str(partial / "text_encoder_2" / "model.safetensors"),)
    assert config_of(folder, "transformer")["num_attention_heads"] == 2


def test_the_transformer_tells_the_schedule_and_not_the_base(
    checkpoint: Path, tiny_flux_dev_folder: Path, tmp_path: Path
) -> None:
    dev = save(
        tmp_path / "dev.safetensors",
        as_bfl(tiny_flux_dev_folder, "transformer", config_of(tiny_flux_dev_folder, "transformer")),
    )

    folder = assemble(GivenFiles(model=dev, base=base(checkpoint)), tmp_path / "sets", NoHub())

    schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert schedule["use_dynamic_shifting"]
    assert schedule["shift"] == 3.0
    assert read_model_spec(folder).default_num_inference_steps == 28


def test_parts_that_do_not_belong_together_are_refused_by_their_files(checkpoint: Path, tmp_path: Path) -> None:
    files = write_single_files(checkpoint, tmp_path / "files")
    tensors = as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer"))
    wide = save(tmp_path / "wide.safetensors", tensors | {"txt_in.weight": torch.zeros(32, 48)})

    message = refusal(
        GivenFiles(model=wide, parts={"text_encoder_2": files["text_encoder_2"]}, base=base(checkpoint)), tmp_path
    )

    assert message.startswith(f"{files['text_encoder_2']} has d_model 32, and the transformer of {wide} reads 48")


def test_a_part_in_the_place_of_another_is_told_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    files = write_single_files(checkpoint, tmp_path / "files")
    whole = base(checkpoint)

    as_model = refusal(GivenFiles(model=files["vae"], base=whole), tmp_path)
    as_vae = refusal(
        GivenFiles(model=files["transformer"], parts={"vae": files["text_encoder_2"]}, base=whole), tmp_path
    )

    assert "holds FLUX.1's autoencoder (VAE), and no transformer" in as_model
    assert f"{files['text_encoder_2']} holds FLUX.1's T5 encoder, not its autoencoder (VAE)" in as_vae


def test_scaled_fp8_says_so(checkpoint: Path, tmp_path: Path) -> None:
    files = write_single_files(checkpoint, tmp_path / "files", scaled_fp8)

    folder = assemble(GivenFiles(model=files["transformer"], base=base(checkpoint)), tmp_path / "sets", NoHub())

    part = describe_parts(folder)["transformer"]
    assert part.quantization == "scaled-fp8"
    assert part.num_parameters == describe_parts(checkpoint)["transformer"].num_parameters


def test_what_an_all_in_one_has_beside_its_parts_refuses_it(checkpoint: Path, tmp_path: Path) -> None:
    path = write_all_in_one(checkpoint, tmp_path / "all.safetensors")
    tensors = as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer"))
    clip_g = {"text_encoders.clip_g.transformer.text_model.final_layer_norm.weight": torch.zeros(2)}
    save(path, prefixed(tensors, "model.diffusion_model.") | clip_g)

    assert "more than FLUX.1's parts (text_encoders.clip_g" in refusal(
        GivenFiles(model=path, base=base(checkpoint)), tmp_path
    )


@pytest.mark.parametrize(
    ("component", "shapes", "said"),
    [
        (
            "vae",
            {"decoder.conv_in.weight": (512, 4, 3, 3)},
            "has latent_channels 4, and the transformer of .* reads 16",
        ),
        (
            "text_encoder_2",
            {"token_embd.weight": (250_112, 4096)},
            "knows 250112 words, and FLUX.1's T5 encoder knows 32128",
        ),
        ("text_encoder_2", "xl", "has d_model 2048, and the transformer of .* reads 4096"),
        ("text_encoder", "big", "has hidden_size 1280, and the transformer of .* reads 768"),
    ],
)
def test_a_part_of_the_true_model_in_another_size_is_refused_before_anything_is_fetched(
    tmp_path: Path, component: str, shapes: dict[str, tuple[int, ...]] | str, said: str
) -> None:
    files = {
        name: save_shapes(tmp_path / f"{name}.safetensors", part_shapes(name))
        for name in ("vae", "text_encoder", "text_encoder_2")
    }
    if isinstance(shapes, str):
        shapes = {
            name: tuple(_narrower(shapes).get(size, size) for size in shape)
            for name, shape in part_shapes(component).items()
        }
    else:
        shapes = {
            **part_shapes(component),
            **{name.replace("token_embd", "shared"): shape for name, shape in shapes.items()},
        }
    files[component] = save_shapes(tmp_path / "other.safetensors", shapes)
    model = save_gguf_shapes(tmp_path / "flux1-schnell-Q4_K_S.gguf", bfl_shapes())

    message = refusal(GivenFiles(model=model, parts=files), tmp_path)

    assert message.startswith(f"{tmp_path / 'other.safetensors'} ")
    assert re.search(said, message)


def _narrower(kind: str) -> dict[int, int]:
    return {"xl": {4096: 2048}, "big": {768: 1280}}[kind]


def test_true_files_of_all_parts_are_put_together_in_a_second(tmp_path: Path) -> None:
    names = ("vae", "text_encoder", "text_encoder_2")
    parts = {name: save_shapes(tmp_path / f"{name}.safetensors", part_shapes(name)) for name in names}
    model = save_gguf_shapes(tmp_path / "flux1-schnell-Q4_K_S.gguf", bfl_shapes())

    folder = assemble(GivenFiles(model=model, parts=parts), tmp_path / "sets", PublicTokenizers(tmp_path))

    counts = {name: part.num_parameters for name, part in describe_parts(folder).items()}
    assert counts == {
        "transformer": 11_891_178_560,
        "text_encoder": 123_060_480,
        "text_encoder_2": 4_762_310_656,
        "vae": 83_819_683,
    }
    assert read_model_spec(folder).size_multiple == 16
    assert describe_parts(folder)["transformer"].quantization == "q4_k"
