"""LoRAs from the command line to the picture: alone, in files of prompts, and behind a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.online_client import PROMPT, OnlineClient, register_tiny_model
from tests.e2e.pictures import open_picture
from tests.e2e.processes import run_safelight, running_server
from tests.fake_hub import GOOD_TOKEN, REPO_ID, fake_hub
from tests.online_server import online_server
from tests.tiny_loras import save_lora

TIMEOUT_S = 120


@pytest.fixture(scope="session")
def lora(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(tmp_path_factory.mktemp("lora"), base=tiny_flux_folder, has_clip=True)


def test_a_picture_is_made_with_a_lora_and_says_so(tiny_flux_folder: Path, lora: Path, tmp_path: Path) -> None:
    command = ("generate", "a dog", "--model", str(tiny_flux_folder), "--seed", "7")
    plain = run_safelight(*command, "-o", "plain.png", cwd=tmp_path)

    done = run_safelight(*command, "-o", "film.png", "--lora", f"film={lora}:0.5", cwd=tmp_path)

    assert (plain.returncode, done.returncode) == (0, 0), done.stderr
    film = open_picture(tmp_path / "film.png")
    assert film.tobytes() != open_picture(tmp_path / "plain.png").tobytes()
    (used,) = json.loads(film.info["safelight"])["loras"]
    assert (used["name"], used["scale"]) == ("film", 0.5)
    assert used["revision"].startswith("sha256:")


def test_a_picture_with_a_lora_is_made_again(tiny_flux_folder: Path, lora: Path, tmp_path: Path) -> None:
    model, entry = ("--model", str(tiny_flux_folder)), f"film={lora}"
    run_safelight("generate", "a dog", *model, "-o", "film.png", "--lora", f"{entry}:0.5", cwd=tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"another file")

    same = run_safelight("replay", "film.png", *model, "--lora", entry, cwd=tmp_path)
    without = run_safelight("replay", "film.png", *model, cwd=tmp_path)
    wrong = run_safelight("replay", "film.png", *model, "--lora", "film=other.safetensors", cwd=tmp_path)

    assert (same.returncode, "the same picture" in same.stdout) == (0, True), same.stderr
    assert (without.returncode, "give it with --lora film=FILE" in without.stderr) == (1, True)
    assert (wrong.returncode, "is not the LoRA 'film' that this picture" in wrong.stderr) == (1, True)


def test_a_server_makes_the_same_pictures_for_requests_that_come_together(
    tiny_flux_folder: Path, lora: Path, tmp_path: Path
) -> None:
    lines = [{"prompt": "a dog", "seed": 7}, {"prompt": "a dog", "seed": 7, "loras": [{"name": "film", "scale": 0.5}]}]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines * 4))
    with running_server(str(tiny_flux_folder), "--lora", f"film={lora}") as server:
        done = run_safelight(
            "generate", "--from", "prompts.jsonl", "--out", "out", "--server", server.url, cwd=tmp_path
        )
        body = {"inputs": "a dog", "parameters": {"lora": {"name": "comic"}}}
        refused = httpx.post(f"{server.url}/predict", json=body, timeout=TIMEOUT_S)
    run_safelight(
        *("generate", "a dog", "--model", str(tiny_flux_folder), "--seed", "7"),
        *("-o", "alone.png", "--lora", f"film={lora}:0.5"),
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert (refused.status_code, "there are: film" in refused.text) == (400, True)
    pixels = [open_picture(tmp_path / "out" / f"{number:06}.png").tobytes() for number in range(1, 9)]
    assert len(set(pixels[0::2])) == len(set(pixels[1::2])) == 1
    assert pixels[1] == open_picture(tmp_path / "alone.png").tobytes() != pixels[0]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("pytorch_lora_weights.safetensors", ""),
        ("FILM.SAFETENSORS", ""),
        ("FILM.SAFETENSORS", "/FILM.SAFETENSORS"),
        ("films/noir v1.2", "/films/noir v1.2"),
    ],
)
def test_a_lora_comes_from_the_hub_with_the_settings_beside_it(
    tiny_flux_folder: Path, lora: Path, tmp_path: Path, stored: str, asked: str
) -> None:
    file = tmp_path / "repository" / stored
    settings = file.parent / "adapter_config.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(lora.read_bytes())
    settings.write_text("{}")
    with fake_hub(tmp_path / "repository") as hub:
        done = run_safelight(
            *("generate", "a dog", "--model", str(tiny_flux_folder), "--lora", f"film={REPO_ID}{asked}"),
            env={
                "HF_ENDPOINT": hub.endpoint,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "hub"),
                "HF_TOKEN": GOOD_TOKEN,
            },
            cwd=tmp_path,
        )

    assert done.returncode == 0, done.stderr
    assert set(hub.downloads) == {hub.name_of(file), hub.name_of(settings)}


@pytest.mark.parametrize(("file", "told"), [("noir", "file noir"), ("noir?token=hf_secret", "such file")])
def test_a_file_that_the_hub_does_not_have_is_named_if_it_is_nothing_but_a_file(
    tiny_flux_folder: Path, lora: Path, tmp_path: Path, file: str, told: str
) -> None:
    with fake_hub(lora.parent, "open") as hub:
        done = run_safelight(
            *("generate", "a dog", "--model", str(tiny_flux_folder), "--lora", f"film={REPO_ID}/{file}"),
            env={"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")},
            cwd=tmp_path,
        )

    assert done.returncode == 1
    assert f"{REPO_ID} has no {told} on the hub" in done.stderr
    assert "secret" not in done.stderr


def test_a_deployment_names_its_own_loras(tmp_path: Path) -> None:
    (tmp_path / "film.safetensors").write_bytes(b"FakeEngine reads no LoRA")
    with online_server(tmp_path / "data") as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        variables = {"SAFELIGHT_LORAS": f"film={tmp_path / 'film.safetensors'}:0.5"}
        begun = client.begin_deploy(environmentVariables=variables)
        assert client.finish(begun)["status"] == "Succeeded"
        missing = client.deploy("green", environmentVariables={"SAFELIGHT_LORAS": "film=/missing.safetensors"})
        blue = {"azureml_model_deployment": "blue"}

        plain = client.draw(client.key(), **blue)
        film = client.draw(client.key(), body=_with_lora(PROMPT, "film"), **blue)
        comic = client.draw(client.key(), body=_with_lora(PROMPT, "comic"), **blue)

    assert (plain.status_code, film.status_code, comic.status_code) == (200, 200, 400)
    assert film.content != plain.content
    assert "there are: film" in comic.text
    assert not begun.json()["properties"].get("warnings")
    assert (missing["status"], "neither a file" in str(missing)) == ("Failed", True)


def _with_lora(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {**body, "parameters": {**body["parameters"], "loras": [{"name": name}]}}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("film={sprite}", "does not fit the model: "),
        ("film=missing.safetensors", "neither a file, nor a folder, nor a hub id"),
        ("film", "NAME=PATH_OR_HUB_ID[:SCALE]"),
    ],
)
def test_a_lora_that_cannot_be_had_is_one_clear_line(lora: Path, tmp_path: Path, entry: str, expected: str) -> None:
    done = run_safelight("generate", "a dog", "--lora", entry.format(sprite=lora), cwd=tmp_path)

    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
