"""Pictures of the real commands and the real server: inspected, replayed, signed, and silent about private prompts."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from safelight.picture.content_credentials import verify
from safelight.picture.files import decode, encode
from tests.e2e.processes import SAFELIGHT, Server, environment, run_safelight, running_server
from tests.signing import SigningFiles, write_signing_files

TIMEOUT_S = 120
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one picture of sprite."""
    folder = tmp_path_factory.mktemp("pictures")
    done = run_safelight("generate", "a fox in the snow", "--seed", "7", "-o", "fox.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> SigningFiles:
    return write_signing_files(tmp_path_factory.mktemp("signing"))


@pytest.fixture(scope="module")
def server(tiny_flux_folder: Path, signing: SigningFiles) -> Iterator[Server]:
    """Signs, and keeps prompts to itself."""
    arguments = [str(tiny_flux_folder), "--device", "cpu", "--private-prompts", "--log-level", "debug"]
    arguments += ["--content-credentials-certificate", str(signing.certificate)]
    with running_server(*arguments, "--content-credentials-key", str(signing.key)) as server:
        yield server


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_replayed_picture_is_the_same(tmp_path: Path, suffix: str) -> None:
    run_safelight("generate", "a dog", "--negative-prompt", "grass", "-o", f"dog.{suffix}", cwd=tmp_path)

    done = run_safelight("replay", f"dog.{suffix}", "-o", f"again.{suffix}", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "the same picture: every pixel is equal\n"), done.stderr
    assert (tmp_path / f"again.{suffix}").read_bytes() == (tmp_path / f"dog.{suffix}").read_bytes()


def test_a_picture_that_was_painted_over_is_another_one(folder: Path) -> None:
    picture = decode((folder / "fox.png").read_bytes())
    pixels = picture.pixels.copy()
    pixels[100:120, 100:120] = 255 - pixels[100:120, 100:120]
    (folder / "touched.png").write_bytes(encode(pixels, image_format="png", recipe=picture.recipe))

    done = run_safelight("replay", "touched.png", cwd=folder)

    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("another picture: pixels differ by ")


def test_inspect_shows_the_recipe_in_every_form(folder: Path) -> None:
    as_json = run_safelight("inspect", "fox.png", "-o", "json", cwd=folder)
    as_yaml = run_safelight("inspect", "fox.png", "-o", "yaml", cwd=folder)
    as_table = run_safelight("inspect", "fox.png", "-o", "table", cwd=folder)

    facts = json.loads(as_json.stdout)
    assert (facts["model"], facts["prompt"], facts["seed"]) == ("sprite", "a fox in the snow", 7)
    assert facts["content_credentials"]["state"] == "none"
    assert "prompt: a fox in the snow\n" in as_yaml.stdout
    assert any(line.split() == ["content_credentials", "none"] for line in as_table.stdout.splitlines())


@pytest.mark.parametrize(
    ("command", "content", "expected"),
    [
        ("inspect", b"once upon a time", "it is no PNG, JPEG or WebP file"),
        ("replay", encode(np.zeros((8, 8, 3), np.uint8), image_format="png"), "it carries no recipe"),
    ],
)
def test_what_has_no_recipe_is_answered_by_one_line(
    tmp_path: Path, command: str, content: bytes, expected: str
) -> None:
    (tmp_path / "it").write_bytes(content)

    done = run_safelight(command, "it", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {expected}")
    assert done.stderr.count("\n") == 1


def test_a_hub_models_picture_names_the_commit_and_is_replayed_by_it(tiny_flux_folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--some-org--tiny"
    shutil.copytree(tiny_flux_folder, cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    env = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    made = run_safelight("generate", "a dog", "--model", "some-org/tiny", "--device", "cpu", cwd=tmp_path, env=env)
    assert made.returncode == 0, made.stderr

    recipe = decode((tmp_path / "out.png").read_bytes()).recipe
    again = run_safelight("replay", "out.png", cwd=tmp_path, env=env)
    elsewhere = run_safelight("replay", "out.png", cwd=tmp_path, env={"HF_HUB_CACHE": str(tmp_path / "empty")})

    assert recipe is not None
    assert (recipe.model, recipe.revision) == ("some-org/tiny", COMMIT)
    assert again.returncode == 0, again.stderr
    assert elsewhere.returncode == 1
    assert f"hf download some-org/tiny --revision {COMMIT}" in elsewhere.stderr


def test_no_dialect_gives_away_a_private_prompt_and_all_sign(server: Server) -> None:
    pictures = [
        httpx.post(
            f"{server.url}/", json={"inputs": "a secret"}, headers={"Accept": media_type}, timeout=TIMEOUT_S
        ).content
        for media_type in ("image/png", "image/jpeg", "image/webp")
    ]
    body = {"prompt": "a secret", "output_format": "webp", "negative_prompt": "no secret", "guidance_scale": 3}
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=TIMEOUT_S).json()
    pictures.append(base64.b64decode(answer["data"][0]["b64_json"]))

    assert [decode(content).image_format for content in pictures] == ["png", "jpeg", "webp", "webp"]
    assert not any(b"secret" in content for content in pictures)
    assert {verify(content).state for content in pictures} == {"valid"}
    assert {verify(content).signed_by for content in pictures} == {"Test Studio, Test Organization"}
    recipe = decode(pictures[-1]).recipe
    assert recipe is not None
    assert recipe.withheld == ("prompt", "negative_prompt")
    assert "secret" not in server.text


def test_generate_leaves_a_private_prompt_out_too(tmp_path: Path) -> None:
    done = run_safelight("generate", "a secret fox", "--private-prompts", "-o", "fox.webp", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    content = (tmp_path / "fox.webp").read_bytes()
    assert b"secret" not in content
    recipe = decode(content).recipe
    assert recipe is not None
    assert recipe.withheld == ("prompt",)


def test_previews_of_private_prompts_say_nothing_either(server: Server) -> None:
    body = {"prompt": "a secret", "stream": True, "partial_images": 2, "num_inference_steps": 12}
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=TIMEOUT_S).text

    events = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line.startswith("data: {")]
    pictures = [base64.b64decode(event["b64_json"]) for event in events if "b64_json" in event]
    assert len(pictures) == 3
    assert not any(b"secret" in content for content in pictures)


def test_an_edit_without_its_prompt_is_replayed_with_all_that_it_was_made_from(
    server: Server, tiny_flux_folder: Path, tmp_path: Path
) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "source.png")
    mask = Image.new("RGBA", (64, 64), "white")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    files = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("source", "mask")}
    answer = httpx.post(
        f"{server.url}/v1/images/edits",
        data={"prompt": "a secret", "seed": "7", "strength": "0.7"},
        files={"image": ("source.png", files["source"]), "mask": ("mask.png", files["mask"])},
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text
    (tmp_path / "edit.png").write_bytes(base64.b64decode(answer.json()["data"][0]["b64_json"]))

    options = ["--model", str(tiny_flux_folder), "--prompt", "a secret", "--source", "source.png", "--mask", "mask.png"]
    done = run_safelight("replay", "edit.png", *options, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_inspect_tells_a_signature_that_holds_from_one_that_does_not(
    server: Server, signing: SigningFiles, tmp_path: Path
) -> None:
    accept = {"Accept": "image/jpeg"}
    content = httpx.post(f"{server.url}/", json={"inputs": "a dog"}, headers=accept, timeout=TIMEOUT_S).content
    (tmp_path / "signed.jpg").write_bytes(content)
    (tmp_path / "touched.jpg").write_bytes(content.replace(b"safelight ", b"moonlight ", 1))

    held, known, broken = (
        json.loads(run_safelight("inspect", *arguments, cwd=tmp_path).stdout)["content_credentials"]
        for arguments in (["signed.jpg"], ["signed.jpg", "--trust-anchors", str(signing.root)], ["touched.jpg"])
    )

    assert (held["state"], held["signed_by"]) == ("valid", "Test Studio, Test Organization")
    assert held["signed_with"].startswith("Safelight ")
    assert (known["state"], known["problems"]) == ("trusted", [])
    assert broken["state"] == "invalid"


def test_serve_refuses_to_start_with_a_key_that_others_can_read(tmp_path: Path) -> None:
    files = write_signing_files(tmp_path)
    files.key.chmod(0o644)

    options = ["--content-credentials-certificate", str(files.certificate), "--content-credentials-key", str(files.key)]
    done = run_safelight("serve", "--port", "0", *options)

    assert done.returncode == 1
    assert done.stderr.endswith(f"run: chmod 600 {files.key}\n")
    assert done.stderr.count("\n") == 1


def test_the_page_about_provenance_does_what_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "provenance.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|yaml|)\n(.*?)```", page, re.DOTALL)
    commands = [text for kind, text in blocks if kind == "sh" and "serve" not in text and "pip install" not in text]
    path = {"PATH": f"{SAFELIGHT.parent}:{os.environ['PATH']}"}

    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len(commands) == 4
    for kind, shown in blocks:
        if kind == "yaml":
            assert re.findall(r"^\w+:", shown, re.MULTILINE) == re.findall(r"^\w+:", done.stdout, re.MULTILINE)
        elif kind == "":
            assert shown in done.stdout
