"""`safelight model list` and `show`: the catalogue, and what users have registered where a server is running."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from safelight.cli.main import main
from safelight.model.checkpoint import revision_of
from safelight.picture.files import decode
from tests.online_server import OnlineServer, online_server

NAME = "black-forest-labs-flux.1-schnell"
HUB_ID = "black-forest-labs/FLUX.1-schnell"


@dataclass
class Printed:
    """What a command left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Printed]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command as `safelight` does, over a data directory in which no server was ever started."""
    monkeypatch.setenv("SAFELIGHT_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Printed:
        monkeypatch.setattr("sys.argv", ["safelight", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return Printed(int(caught.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineServer]:
    with online_server(tmp_path_factory.mktemp("online")) as server:
        yield server


@pytest.fixture
def run_beside_server(run: Run, server: OnlineServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SAFELIGHT_DATA_DIR", str(server.data_dir))
    return run


def test_without_a_server_the_catalogue_is_listed_and_a_note_says_what_is_not(run: Run) -> None:
    printed = run("model", "list", "-o", "json")

    assert printed.status == 0
    assert [model["name"] for model in json.loads(printed.out)] == ["sprite", NAME]
    assert printed.err.startswith("note: registered models are not shown: no server has been started over")


def test_a_server_that_has_gone_is_a_note_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "server.json").write_text('{"url": "http://127.0.0.1:9"}')
    (tmp_path / "nowhere" / "admin-token").write_text("token")
    printed = run("model", "list", "-o", "table")

    assert printed.status == 0
    assert NAME in printed.out
    assert "no server answers at http://127.0.0.1:9" in printed.err


@pytest.mark.parametrize(
    "reference",
    [
        HUB_ID,
        NAME,
        f"azureml://registries/HuggingFace/models/{NAME}/versions/1",
        f"azureml://registries/HuggingFace/models/{NAME}/labels/latest",
        f"azureml:{NAME}:1",
    ],
)
def test_every_form_of_a_models_name_shows_its_card(run: Run, reference: str) -> None:
    printed = run("model", "show", reference, "-o", "json")

    assert (printed.status, printed.err) == (0, "")
    card = json.loads(printed.out)
    assert (card["name"], card["version"], card["is_gated"]) == (NAME, "1", True)


def test_what_is_not_registered_is_named_as_a_deployment_names_it(run: Run, tiny_flux_folder: Path) -> None:
    folder, hub_model = run("model", "show", str(tiny_flux_folder)), run("model", "show", "acme/flux")

    assert json.loads(folder.out)["uri"] == str(tiny_flux_folder)
    assert json.loads(hub_model.out)["uri"] == "acme/flux"


def test_the_options_of_az_ml_name_a_model_too(run: Run) -> None:
    registry = ("--registry-name", "HuggingFace")
    by_version = run("model", "show", "--name", NAME, "--version", "1", *registry, "-o", "yaml")
    by_label = run("model", "show", "--name", NAME, "--label", "latest", *registry, "-o", "yaml")
    missing = run("model", "show", "--name", NAME, "--version", "9", *registry)

    assert yaml.safe_load(by_version.out) == yaml.safe_load(by_label.out)
    assert (missing.status, "has version 1" in missing.err) == (1, True)


def test_the_card_of_flux_reads_as_its_card_on_the_hub(run: Run) -> None:
    out = run("model", "show", HUB_ID, "-o", "table").out

    for fact in (
        "Apache-2.0",
        "January 2026",
        "Hugging Face",
        "yes; request access at https://huggingface.co/black-forest-labs/FLUX.1-schnell",
        "33.7 GB of memory in bfloat16 or float16, 67.4 GB in float32 (weights only)",
        "64 to 2048, multiples of 16",
        "euler, heun, lcm, unipc, dpmpp",
    ):
        assert fact in out


def test_the_card_of_sprite_says_what_it_draws_and_needs(run: Run) -> None:
    out = run("model", "show", "sprite", "-o", "table").out

    for fact in ("emoji", "MIT", "128 to 384, multiples of 32", "MB of memory in", "an astronaut riding a horse"):
        assert fact in out


def test_registered_models_are_listed_and_shown_beside_the_catalogue(
    run_beside_server: Run, tiny_flux_folder: Path, tmp_path: Path
) -> None:
    run, lost = run_beside_server, tmp_path / "lost"
    shutil.copytree(tiny_flux_folder, lost)
    run("model", "create", "-n", "mine", "--path", str(tiny_flux_folder), "--description", "A first try")
    run("model", "create", "-n", "mine", "--path", "acme/flux")
    run("model", "create", "-n", "lost", "--path", str(lost))
    shutil.rmtree(lost)

    listed, shown, latest = run("model", "list"), run("model", "show", "azureml:mine:1"), run("model", "show", "mine")

    names = [(model["name"], model["version"]) for model in json.loads(listed.out)]
    assert names == [("sprite", "1"), (NAME, "1"), ("mine", "1"), ("mine", "2"), ("lost", "1")]
    assert "note: azureml:lost:1: " in listed.err
    first, second = json.loads(shown.out), json.loads(latest.out)
    assert (first["path"], first["description"]) == (str(tiny_flux_folder), "A first try")
    assert first["weights_bytes"]["float32"] > 0
    assert (second["version"], second["hub_id"], second["is_gated"]) == ("2", "acme/flux", None)


def test_an_unknown_model_is_answered_by_what_there_is(run_beside_server: Run) -> None:
    printed = run_beside_server("model", "show", "azureml:nothing:1")

    assert printed.status == 1
    assert f"azureml://registries/HuggingFace/models/{NAME}/versions/1" in printed.err


def test_a_quantized_model_is_one_that_every_command_takes(
    run: Run, tiny_flux_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, generate = tmp_path / "tiny-int8", ("generate", "a red cat", "--seed", "7", "--output")
    printed = run("model", "quantize", str(tiny_flux_folder), "--to", "int8", "--out", str(out))

    assert (printed.status, printed.err) == (0, "")
    kinds = json.loads(printed.out)["components"]
    assert kinds == {"transformer": "int8", "vae": "f32", "text_encoder": "f32", "text_encoder_2": "int8"}
    assert run(*generate, str(tmp_path / "mapped.png"), "--model", str(out)).status == 0
    monkeypatch.setenv("SAFELIGHT_QUANTIZATION", "int8")
    monkeypatch.setenv("SAFELIGHT_TEXT_ENCODER_2_QUANTIZATION", "int8")
    assert run(*generate, str(tmp_path / "loaded.png"), "--model", str(tiny_flux_folder)).status == 0
    pictures = [decode((tmp_path / name).read_bytes()) for name in ("mapped.png", "loaded.png")]
    np.testing.assert_array_equal(pictures[0].pixels, pictures[1].pixels)
    assert pictures[0].recipe is not None
    assert (pictures[0].recipe.model, pictures[0].recipe.revision) == ("tiny-int8", revision_of(out))


def test_what_stays_as_it_is_is_said_and_what_is_there_stays(run: Run, tiny_flux_folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("model", "quantize", str(tiny_flux_folder), "--to", "nf4", "--text-encoder-2-to", "none", "--out", str(first))

    printed = run("model", "quantize", str(first), "--to", "int8", "--out", str(second))
    again = run("model", "quantize", str(first), "--to", "int8", "--out", str(second))

    assert printed.err == "note: the transformer is quantized already, and stays as it is\n"
    assert json.loads(printed.out)["components"]["transformer"] == "nf4"
    assert (again.status, again.err) == (1, f"error: {second} is there already; give a new folder\n")
