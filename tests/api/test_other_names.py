"""Names that other programs give to parameters: every dialect, the command line and prompt files tell ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from safelight.api.http.validation import validate
from safelight.api.openai.wire import ImageGenerationBody
from safelight.cli.commands import command_line
from safelight.cli.pictures.prompt_file import read_prompt_file
from safelight.errors import UnknownParameter
from tests.api.test_edits import PICTURE

ONE = "one request makes one picture here; /v1/images/generations takes n"
HINTS = {  # name: Hugging Face's, OpenAI's, the command line's
    "step": ("here it is 'num_inference_steps'", "here it is 'num_inference_steps'", "here it is --steps"),
    "sampler": ("here it is 'scheduler'", "here it is 'scheduler'", "here it is --scheduler"),
    "sampler_name": ("here it is 'scheduler'", "here it is 'scheduler'", "here it is --scheduler"),
    "cfg": ("here it is 'guidance_scale'", "here it is 'guidance_scale'", "here it is --guidance-scale"),
    "cfg_scale": ("here it is 'guidance_scale'", "here it is 'guidance_scale'", "here it is --guidance-scale"),
    "CFGScale": ("here it is 'guidance_scale'", "here it is 'guidance_scale'", "here it is --guidance-scale"),
    "guidance": ("here it is 'guidance_scale'", "here it is 'guidance_scale'", "here it is --guidance-scale"),
    "num_images": (ONE, "here it is 'n'", "here it is --n"),
    "batch_size": (ONE, "here it is 'n'", "here it is --n"),
    "numberResults": (ONE, "here it is 'n'", "here it is --n"),
    "image_size": ("here it is 'width' and 'height'", "here it is 'size'", "here it is --width and --height"),
    "aspect_ratio": ("here it is 'width' and 'height'", "here it is 'size'", "here it is --width and --height"),
    "random_seed": ("here it is 'seed'", "here it is 'seed'", "here it is --seed"),
    "negativePrompt": ("here it is 'negative_prompt'", "here it is 'negative_prompt'", "here it is --negative-prompt"),
    "num-inference-stepz": (
        "did you mean 'num_inference_steps'?",
        "did you mean 'num_inference_steps'?",
        "No such option: --num-inference-stepz",
    ),
    "widht": ("did you mean 'width'?", "did you mean 'width'?", "did you mean --width?"),
    "image_format": ("the Accept header says it", "here it is 'output_format'", "here it is --format"),
    "jpeg_quality": (
        "/v1/images/generations takes output_compression",
        "here it is 'output_compression'",
        "here it is --quality",
    ),
    "lora_scale": ("here it is 'loras'", "here it is 'loras'", "here it is --lora"),
    "prompt_upsampling": ("prompts are painted as they are here",) * 3,
    "enable_safety_checker": ("nothing is filtered here",) * 3,
}
BOTH = [("steps", "here it is 'num_inference_steps'"), *((name, hints[1]) for name, hints in HINTS.items())]


@pytest.mark.parametrize(("name", "hint"), [("steps", BOTH[0][1]), *((name, HINTS[name][0]) for name in HINTS)])
@pytest.mark.parametrize("place", ["parameters", "top", "inputs", "query"])
def test_hugging_faces_routes_tell_our_name_wherever_it_stands(
    client: TestClient, name: str, hint: str, place: str
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "parameters": {"inputs": "a", "parameters": {name: 4}},
        "top": {"inputs": "a", name: 4},
        "inputs": {"inputs": {"prompt": "a", name: 4}},
        "query": {"inputs": "a"},
    }
    response = client.post("/", json=bodies[place], params={name: "4"} if place == "query" else None)

    assert response.status_code == 400
    assert f"{name}' ({hint}" in response.json()["error"].replace(
        "; /v1/images/generations takes output", " takes output"
    )


@pytest.mark.parametrize(("name", "hint"), BOTH)
@pytest.mark.parametrize("route", ["/v1/images/generations", "/v1/images/edits", "a form"])
def test_openais_routes_tell_our_name_in_json_and_in_forms(
    client: TestClient, name: str, hint: str, route: str
) -> None:
    if route == "a form":
        files = {"image": ("a.png", PICTURE)}
        response = client.post("/v1/images/edits", data={"prompt": "a", name: "4"}, files=files)
    else:
        response = client.post(route, json={"prompt": "a", name: 4})

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unknown_parameter", name)
    assert f"unknown parameter '{name}' ({hint}" in error["message"]


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"init_image": "x"}, "'init_image' (here it is 'image'); accepted are: "),
        ({"images": "[]"}, "'images' (here it is 'image'); accepted are: "),
        ({"mask_image": "x"}, "'mask_image' (here it is 'mask'); accepted are: "),
        ({"denoising_strength": "0.5"}, "'denoising_strength' (here it is 'strength'); accepted are: "),
    ],
)
def test_a_form_of_an_edit_tells_the_names_of_its_files_and_strength(
    client: TestClient, fields: dict[str, str], hint: str
) -> None:
    files = {"image": ("a.png", PICTURE)}
    error = client.post("/v1/images/edits", data={"prompt": "a", **fields}, files=files).json()["error"]

    assert hint in error["message"]


def test_an_image_for_a_route_that_takes_none_is_told_where_one_is_taken(client: TestClient) -> None:
    error = client.post("/v1/images/generations", json={"prompt": "a", "init_image": "x"}).json()["error"]

    assert "'init_image' (pictures are made from pictures by /v1/images/edits)" in error["message"]


def test_what_weighs_a_lora_is_its_scale(client: TestClient) -> None:
    body = {"prompt": "a", "loras": [{"name": "a", "weight": 1}]}
    error = client.post("/v1/images/generations", json=body).json()["error"]

    assert "'loras.0.weight' (here it is 'scale')" in error["message"]


def errors_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        command_line()(args=command, prog_name="safelight")
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("name", "hint"), [(name, hints[2]) for name, hints in HINTS.items()])
def test_the_command_line_tells_our_option(capsys: pytest.CaptureFixture[str], name: str, hint: str) -> None:
    errors = errors_of(["generate", "a fox", "--" + name.replace("_", "-"), "4"], capsys)

    assert hint in errors
    assert "Possible options" not in errors


def test_the_command_line_names_no_argument_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert not re.search(r"did you mean (--)?model\?", errors_of(["serve", "--modell", "sprite"], capsys))


@pytest.mark.parametrize(("name", "hint"), [pair for pair in BOTH if pair[0] != "steps"])
def test_a_line_of_a_prompt_file_is_told_our_name(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / "it.jsonl").write_text(f'{{"prompt": "a fox", "{name}": 4}}\n')
    (line,) = read_prompt_file(str(tmp_path / "it.jsonl"), {})

    with pytest.raises(UnknownParameter) as caught:
        validate(ImageGenerationBody, line.body)

    assert hint in caught.value.message
