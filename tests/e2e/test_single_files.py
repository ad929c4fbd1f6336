"""Files as people have them, with the real commands: nothing is fetched that is there, and no token without a gate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import run_safelight, running_server
from tests.fake_hub import GOOD_TOKEN, FakeHub, fake_hub
from tests.single_files import write_all_in_one, write_ggufs, write_single_files
from tests.slim_flux import save_public_tokenizers, save_slim_flux

HUB_ID = "black-forest-labs/FLUX.1-schnell"
PICTURE = ("generate", "a red cat", "--width", "64", "--height", "64", "--steps", "1", "--seed", "7")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slim_flux(tmp_path_factory.mktemp("slim") / "flux")


@contextmanager
def hub_of(checkpoint: Path, tmp_path: Path) -> Iterator[tuple[FakeHub, Mapping[str, str]]]:
    """The hub, and what a command sees of it."""
    with fake_hub(checkpoint, repo_id=HUB_ID) as hub:
        hub.public = save_public_tokenizers(tmp_path / "public")
        yield (
            hub,
            {
                "SAFELIGHT_DATA_DIR": str(tmp_path / "data"),
                "HF_ENDPOINT": hub.endpoint,
                "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_OFFLINE": "0",
            },
        )


def paint(output: Path, env: Mapping[str, str], *options: str) -> bytes:
    done = run_safelight(*PICTURE, "-o", str(output), *options, env=env)
    assert done.returncode == 0, done.stderr
    return open_picture(output).tobytes()


def recipe_of(picture: Path) -> Mapping[str, object]:
    recipe: Mapping[str, object] = json.loads(run_safelight("inspect", str(picture), "--output", "json").stdout)
    return recipe


def options_of(files: Mapping[str, Path]) -> list[str]:
    parts = (name for name in files if name != "transformer")
    return [
        *("--model", str(files["transformer"])),
        *(each for name in parts for each in (f"--{name.replace('_', '-')}", str(files[name]))),
    ]


def test_with_all_parts_at_hand_only_the_tokenizers_are_fetched_once_and_without_a_token(
    checkpoint: Path, tmp_path: Path
) -> None:
    files = write_single_files(checkpoint, tmp_path / "files") | write_ggufs(checkpoint, tmp_path / "files", "Q8_0")
    with hub_of(checkpoint, tmp_path) as (hub, env):
        first = paint(tmp_path / "first.png", env, *options_of(files))
        asked = list(hub.requests)
        again = run_safelight("replay", str(tmp_path / "first.png"), "-o", str(tmp_path / "again.png"), env=env)
        paint(tmp_path / "same.png", env, *options_of(files))
        assert hub.requests == asked

    assert again.returncode == 0, again.stderr + again.stdout
    assert open_picture(tmp_path / "again.png").tobytes() == open_picture(tmp_path / "same.png").tobytes() == first
    assert recipe_of(tmp_path / "first.png")["quantization"] == "transformer q8_0"
    assert not any(HUB_ID in path for path in asked)
    assert {"spiece.model", "vocab.json", "tokenizer_config.json"} <= set(hub.downloads)
    assert "model.safetensors" not in hub.downloads


def test_with_a_folder_for_the_rest_nothing_asks_the_hub(checkpoint: Path, tmp_path: Path) -> None:
    with hub_of(checkpoint, tmp_path) as (hub, env):
        paint(tmp_path / "whole.png", env, "--model", str(checkpoint))
        whole = paint(
            tmp_path / "all.png",
            env,
            "--model",
            str(write_all_in_one(checkpoint, tmp_path / "all.safetensors")),
            "--components",
            str(checkpoint),
        )
        assert hub.requests == []

    assert whole == open_picture(tmp_path / "whole.png").tobytes()
    assert "quantization" not in recipe_of(tmp_path / "whole.png")


def test_of_the_gated_repository_only_the_parts_that_a_file_lacks_are_fetched(checkpoint: Path, tmp_path: Path) -> None:
    gguf = write_ggufs(checkpoint, tmp_path / "files", "Q8_0")["transformer"]
    with hub_of(checkpoint, tmp_path) as (hub, env):
        refused = run_safelight(*PICTURE, "-o", str(tmp_path / "none.png"), "--model", str(gguf), env=env)
        paint(tmp_path / "first.png", env | {"HF_TOKEN": GOOD_TOKEN}, "--model", str(gguf))

    assert refused.returncode == 1
    assert f"{HUB_ID} is gated and no token was given" in refused.stderr
    assert refused.stderr.endswith(
        f"or give what {gguf.name} lacks as files: --vae, --text-encoder, --text-encoder-2\n"
    )
    assert "Traceback" not in refused.stderr
    assert {"vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"} <= set(hub.downloads)
    assert not [name for name in hub.downloads if name.startswith("transformer/") and name.endswith(".safetensors")]


def test_a_file_that_is_not_served_is_refused_before_anything_is_fetched_or_started(
    checkpoint: Path, tmp_path: Path
) -> None:
    files = write_single_files(checkpoint, tmp_path / "files")
    whole = files["transformer"].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with hub_of(checkpoint, tmp_path) as (hub, env):
        cut = run_safelight(*PICTURE, "--model", str(tmp_path / "cut.safetensors"), env=env)
        alone = run_safelight("serve", str(files["vae"]), env=env)
        twice = run_safelight(*PICTURE, "--model", str(checkpoint), "--components", str(checkpoint), env=env)
        assert hub.requests == []

    assert "cut.safetensors cannot be read: its weights are not whole; download it again" in cut.stderr
    assert "holds FLUX.1's autoencoder (VAE), and no transformer" in alone.stderr
    assert "--components goes with a model that is a file" in twice.stderr
    for done in (cut, alone, twice):
        assert done.returncode in (1, 2)
        assert len(done.stderr.splitlines()) == 1


def test_a_set_of_files_is_served_and_registered_and_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    files = write_ggufs(checkpoint, tmp_path / "files", "Q4_0")
    given = ["--components", str(checkpoint), "--text-encoder-2", str(files["text_encoder_2"])]
    env = {"SAFELIGHT_DATA_DIR": str(tmp_path / "data")}
    with running_server(str(files["transformer"]), *given, env=env) as server:
        body = {
            "prompt": "a red cat",
            "size": "64x64",
            "seed": 7,
            "response_format": "b64_json",
            "num_inference_steps": 1,
        }
        answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=60)
        made = run_safelight("model", "create", "--name", "tiny", "--path", str(files["transformer"]), *given, env=env)
        shown = run_safelight("model", "show", "tiny", "--output", "json", env=env)
        table = run_safelight("model", "show", "tiny", "--output", "table", env=env)
        asked = ("--plan", "--device", "cuda", "--memory", "8GB", "--output", "json")
        plan = run_safelight("model", "show", "tiny", *asked, env=env)
        plan_of_files = run_safelight("model", "show", str(files["transformer"]), *given, *asked, env=env)

    assert answer.status_code == 200, answer.text
    assert made.returncode == 0, made.stderr
    parts = json.loads(shown.stdout)["parts"]
    assert parts["transformer"]["dtype"] == "Q4_0"
    assert parts["transformer"]["format"] == "gguf (BFL)"
    assert parts["transformer"]["num_bytes"] < files["transformer"].stat().st_size
    assert parts["vae"]["dtype"] == "F32"
    assert "gguf (BFL), Q4_0" in table.stdout
    assert "gguf (llama.cpp)" in table.stdout
    assert json.loads(plan.stdout)["components"][0]["precision"] == "Q4_0", plan.stderr
    assert plan_of_files.stdout == plan.stdout


def test_a_file_on_the_hub_is_named_by_its_path_there(checkpoint: Path, tmp_path: Path) -> None:
    repository = tmp_path / "gguf"
    file = write_ggufs(checkpoint, repository, "Q8_0")["transformer"].name
    with hub_of(checkpoint, tmp_path) as (hub, env):
        hub.public["acme/flux-gguf"] = repository
        paint(tmp_path / "first.png", env, "--model", f"acme/flux-gguf/{file}", "--components", str(checkpoint))

    assert hub.downloads == [file]
    assert [folder.name.rpartition("-")[0] for folder in (tmp_path / "data" / "file-sets").iterdir()] == [
        Path(file).stem.lower()
    ]


def test_a_component_of_a_checkpoint_is_replaced_by_a_file(checkpoint: Path, tmp_path: Path) -> None:
    t5 = write_ggufs(checkpoint, tmp_path / "files", "Q8_0")["text_encoder_2"]
    partial = shutil.copytree(checkpoint, tmp_path / "partial")
    (partial / "text_encoder_2" / "model.safetensors").unlink()
    env = {"SAFELIGHT_DATA_DIR": str(tmp_path / "data")}

    paint(tmp_path / "picture.png", env, "--model", str(partial), "--text-encoder-2", str(t5))
