"""The commands, run as a user runs them: files, exit statuses, and what is printed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import run_safelight


def test_generate_writes_a_picture_and_prints_its_seed(tmp_path: Path) -> None:
    done = run_safelight("generate", "a red apple", "-o", "apple.png", "--seed", "7", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert open_picture(tmp_path / "apple.png").size == (256, 256)
    assert "seed 7" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["apple.png"]


def test_the_same_seed_makes_the_same_picture_in_another_process(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        run_safelight("generate", "a fox next to a car", "-o", name, "--seed", "11", cwd=tmp_path)

    assert open_picture(tmp_path / "one.png").tobytes() == open_picture(tmp_path / "two.png").tobytes()


def test_image_i_of_n_is_the_picture_of_seed_plus_i(tmp_path: Path) -> None:
    run_safelight("generate", "a dog", "-o", "dog.png", "--n", "2", "--seed", "5", cwd=tmp_path)
    run_safelight("generate", "a dog", "-o", "alone.png", "--seed", "6", cwd=tmp_path)

    assert open_picture(tmp_path / "dog-1.png").tobytes() == open_picture(tmp_path / "alone.png").tobytes()


def test_the_transformer_is_kept_as_asked_and_its_picture_says_so(tmp_path: Path) -> None:
    for precision in ("none", "nf4"):
        options = ("--quantization", precision, "--memory", "8GB", "--vae-tiling", "off", "--seed", "5")
        done = run_safelight("generate", "a dog", "-o", f"{precision}.png", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    plain, small = open_picture(tmp_path / "none.png"), open_picture(tmp_path / "nf4.png")
    assert plain.tobytes() != small.tobytes()
    assert "transformer nf4" in json.loads(small.info["safelight"])["quantization"]


def test_whoever_sets_a_timeout_waits_no_longer(tmp_path: Path) -> None:
    done = run_safelight("generate", "a dog", "-o", "dog.png", "--timeout", "0.001", cwd=tmp_path)

    assert done.returncode == 1
    assert "timeout of 0.001 s" in done.stderr
    assert not (tmp_path / "dog.png").exists()


def test_the_ending_of_the_output_names_the_format(tmp_path: Path) -> None:
    run_safelight("generate", "a dog", "-o", "dog.webp", "--width", "128", "--height", "192", cwd=tmp_path)

    picture = open_picture(tmp_path / "dog.webp")
    assert (picture.format, picture.size) == ("WEBP", (128, 192))


def test_a_picture_says_how_it_was_made(tmp_path: Path) -> None:
    run_safelight("generate", "a dog", "-o", "dog.png", "--seed", "3", cwd=tmp_path)

    recipe = json.loads(open_picture(tmp_path / "dog.png").info["safelight"])
    assert (recipe["prompt"], recipe["seed"], recipe["num_inference_steps"]) == ("a dog", 3, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate"], "give a prompt"),
        (["generate", "--model", "./what-would-be-fetched"], "give a prompt"),
        (["generate", "a dog", "-o", "dog.gif"], "does not end in .png"),
        (["generate", "a dog", "-o", "nowhere/dog.png"], "folder nowhere does not exist"),
        (["generate", "a dog", "-o", "/proc/dog.png"], "/proc/dog.png cannot be written"),
        (["generate", "a dog", "--width", "250"], "the nearest is 256"),
        (["generate", "a dog", "--scheduler", "ddim"], "FlowMatchEulerDiscreteScheduler (euler)"),
        (["generate", "a dog", "--steps", "0"], "between 1 and"),
        (["generate", "a dog", "--model", "no such model"], "a folder in the diffusers layout"),
        (["generate", "a dog", "--device", "tpu"], "device"),
        (["generate", "a dog", "--quantization", "int2"], "quantization"),
        (["generate", "a dog", "--memory", "lots"], "write it as 12GB or 11GiB"),
        (["generate", "a dog", "--memory", "1MB"], "the smallest plan is --quantization"),
        (["generate", "a dog", "--offload", "layers", "--device", "cpu"], "needs a GPU"),
        (["generate", "a dog", "--timeout", "0"], "--timeout 0 gives no time"),
        (["generate", "a dog", "--timeout", "nan"], "--timeout nan gives no time"),
        (["serve", "--memory", "1MB"], "the smallest plan is --quantization"),
        (["serve", "--host", "0.0.0.0"], "refusing to listen on 0.0.0.0 without a key"),
        (["serve", "--api-key-file", "missing.txt"], "missing.txt cannot be read"),
        (["model", "show", "."], "model_index.json is missing"),
        (["generat"], "No such command"),
    ],
)
def test_a_mistake_is_answered_by_one_clear_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    done = run_safelight(*arguments, cwd=tmp_path)

    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_environment_variable_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    done = run_safelight("generate", "a dog", env={"SAFELIGHT_DEVICES": "cpu"}, cwd=tmp_path)

    assert done.returncode == 1
    assert "did you mean SAFELIGHT_DEVICE?" in done.stderr


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_safelight("serve", "--port", str(port))

    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr


def test_the_models_are_listed_and_shown() -> None:
    listed = run_safelight("model", "list")
    shown = run_safelight("model", "show", "black-forest-labs/FLUX.1-schnell")

    assert "sprite" in listed.stdout
    assert "black-forest-labs-flux.1-schnell" in listed.stdout
    assert "Apache-2.0" in shown.stdout
    assert "FLUX.1 [schnell]" in shown.stdout


def test_examples_are_prompts_that_can_be_used(tmp_path: Path) -> None:
    done = run_safelight("generate", "--examples", cwd=tmp_path)

    assert len(done.stdout.splitlines()) >= 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["serve"], ["generate"], ["model"], ["model", "list"], ["model", "show"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    done = run_safelight(*command, "--help")

    assert done.returncode == 0
    assert "Usage: safelight" in done.stdout
