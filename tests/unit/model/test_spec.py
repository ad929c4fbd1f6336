"""What is read off a folder in the diffusers layout, without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from safelight.errors import ModelLoadError
from safelight.model.checkpoint import read_model_spec
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.spec import Guidance, folder_name
from tests.checkpoint_files import write_checkpoint, write_json


def write_folder(folder: Path, *, sidecar: dict[str, Any] | None = None, **transformer: Any) -> Path:
    write_checkpoint(folder, {"transformer/config.json": transformer})
    if sidecar is not None:
        write_json(folder / "safelight.json", sidecar)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read_model_spec(folder)
    return caught.value.message


def test_a_checkpoint_without_embedded_guidance_is_read_as_schnell(tmp_path: Path) -> None:
    spec = read_model_spec(write_folder(tmp_path / "FLUX.1-Schnell", guidance_embeds=False))

    assert (spec.name, spec.guidance) == ("flux.1-schnell", Guidance.NONE)
    assert (spec.default_num_inference_steps, spec.max_sequence_length, spec.size_multiple) == (4, 256, 16)


def test_a_checkpoint_with_embedded_guidance_is_read_as_dev(tmp_path: Path) -> None:
    spec = read_model_spec(write_folder(tmp_path, guidance_embeds=True))

    assert spec.guidance is Guidance.EMBEDDED
    assert (spec.default_num_inference_steps, spec.max_sequence_length, spec.default_guidance_scale) == (28, 512, 3.5)


def test_the_sidecar_has_the_last_word(tmp_path: Path) -> None:
    sidecar = {"name": "sprite", "guidance": "trained", "max_size": 256, "schedulers": ["X"]}

    spec = read_model_spec(write_folder(tmp_path, sidecar=sidecar))

    assert (spec.name, spec.guidance, spec.schedulers) == ("sprite", Guidance.TRAINED, ("X",))
    assert spec.max_pixels == 256 * 256


def test_the_size_multiple_follows_the_depth_of_the_autoencoder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    write_json(folder / "vae/config.json", {"decoder_block_out_channels": [64] * 5, "latent_channels": 16})

    assert read_model_spec(folder).size_multiple == 32


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "transformer/config.json").unlink()

    assert "transformer/config.json is missing" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[1]", "\udcff"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path)
    (folder / "model_index.json").write_bytes(content.encode("utf-8", "surrogateescape"))

    assert "model_index.json" in refusal(folder)


def test_an_unknown_key_in_the_sidecar_is_refused_by_name(tmp_path: Path) -> None:
    assert "default_steps" in refusal(write_folder(tmp_path, sidecar={"default_steps": 4}))


def test_an_unknown_guidance_in_the_sidecar_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert "embedded, trained, none" in refusal(write_folder(tmp_path, sidecar={"guidance": "some"}))


@pytest.mark.parametrize(
    ("sidecar", "field"),
    [({"default_width": "big"}, "default_width"), ({"max_size": "9"}, "max_size"), ({"name": 5}, "name")],
)
def test_a_sidecar_value_of_the_wrong_type_is_named(tmp_path: Path, sidecar: dict[str, object], field: str) -> None:
    assert field in refusal(write_folder(tmp_path, sidecar=sidecar))


def test_an_autoencoder_config_without_a_list_of_channels_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    write_json(folder / "vae/config.json", {"block_out_channels": 5, "latent_channels": 16})

    assert "vae/config.json has no list block_out_channels" in refusal(folder)


def test_a_folder_in_the_hubs_cache_is_named_by_its_hub_id(tmp_path: Path) -> None:
    spec = read_model_spec(write_folder(tmp_path / "models--Acme--Tiny_FLUX" / "snapshots" / "0123456789abcdef"))

    assert spec.name == "acme-tiny-flux"


def _safetensors(head: bytes, weights: bytes = b"") -> bytes:
    return len(head).to_bytes(8, "little") + head + weights


def test_weights_are_counted_by_the_heads_of_the_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    tensors = {"weight": np.zeros((3, 4), np.float16), "scale": np.zeros((), np.float32)}
    save_file(tensors, folder / "vae" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    for shard in ("1.safetensors", "2.safetensors"):
        save_file({f"{shard}.{name}": tensor for name, tensor in tensors.items()}, folder / "transformer" / shard)
    shards = {"a": "1.safetensors", "b": "2.safetensors"}
    write_json(folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json", {"weight_map": shards})

    counts = {name: part.num_parameters for name, part in describe_parts(folder).items()}
    assert counts == {"transformer": 26, "vae": 13, "text_encoder": 0, "text_encoder_2": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        _safetensors(b'{"a"'),
        _safetensors(b"[]"),
        _safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        _safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')[:20],
        _safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(7)),
    ],
)
def test_a_broken_file_of_weights_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    folder = write_folder(tmp_path)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(content)

    with pytest.raises(ModelLoadError, match=r"model.safetensors cannot be read: .*; download it again"):
        describe_parts(folder)


@pytest.mark.parametrize("name", ["fl\x1bux\n", os.fsdecode(b"fl\xffux\xfe"), "fl\u202eux\u200b"])
def test_a_model_s_name_can_be_shown_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()

    assert folder_name(tmp_path / name) == "fl-ux-"
