from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.true_heads import save_true_flux
from tests.unit.cli.models.conftest import Run

FLUX = "black-forest-labs-flux.1-schnell"
BESIDE = "a step, and a picture decoded beside it"


@pytest.fixture(scope="module")
def true_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_true_flux(tmp_path_factory.mktemp("true") / "flux")


@pytest.mark.parametrize(
    ("device", "memory", "transformer", "t5", "highest"),
    [
        ("cuda", "48GB", "BF16 cuda 23.8 GB", "BF16 cuda 9.5 GB", f"{BESIDE} 44.4 GB"),
        ("cuda", "24GB", "int8 cuda 12.0 GB", "int8 cuda 4.9 GB", f"{BESIDE} 19.9 GB"),
        (
            "cuda",
            "16GB",
            "int8 cuda 12.0 GB",
            "int8 memory; block by block to cuda 4.9 GB",
            f"{BESIDE} 14.7 GB",
        ),
        (
            "cuda",
            "12GB",
            "nf4 cuda 6.4 GB",
            "int8 memory; block by block to cuda 4.9 GB",
            f"{BESIDE} 9.2 GB",
        ),
        (
            *("cuda", "8GB"),
            *("int8 memory; block by block to cuda 12.0 GB", "int8 memory; block by block to cuda 4.9 GB"),
            "a step 3.0 GB",
        ),
        ("cpu", "24GiB", "int8 memory 12.", "int8 memory ", "a step "),
    ],
)
def test_the_plan_of_a_device_that_is_not_here_is_a_table(
    run: Run, true_flux: Path, device: str, memory: str, transformer: str, t5: str, highest: str
) -> None:
    status, out, err = run(str(true_flux), "--plan", "--device", device, "--memory", memory, "-o", "table")

    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    rows = {line.partition(" ")[0]: line for line in lines}
    assert rows["transformer"].startswith(f"transformer {transformer}")
    assert rows["text_encoder_2"].startswith(f"text_encoder_2 {t5}")
    assert next(line for line in lines if line.endswith(" highest")).startswith(highest)
    assert lines[lines.index("slower for it:") + 1] == "nothing" or memory != "48GB"
    assert lines[-1].startswith("the same by hand: --quantization ")


def test_a_plan_without_room_for_both_says_that_pictures_wait_for_each_other(run: Run) -> None:
    plans = {
        memory: json.loads(run(FLUX, "--plan", "--device", "cuda", "--memory", memory, "-o", "json")[1])
        for memory in ("43GB", "48GB", "8GB")
    }

    waiting = "the steps of other pictures: they wait while one is decoded"
    assert {memory: told["decodes_beside"] for memory, told in plans.items()} == {
        "43GB": False,
        "48GB": True,
        "8GB": False,
    }
    assert {memory: waiting in told["slower"] for memory, told in plans.items()} == {
        "43GB": True,
        "48GB": False,
        "8GB": True,
    }


def test_the_catalogue_tells_the_plan_that_the_files_tell(run: Run, true_flux: Path) -> None:
    options = ("--plan", "--device", "cuda", "--memory", "16GB", "-o", "json")

    before, after = run(FLUX, *options), run(str(true_flux), *options)

    assert before == after
    report = json.loads(before[1])
    assert report["components"][0] == {
        "name": "transformer", "precision": "int8", "place": "cuda", "num_bytes": 11971796841
    }  # fmt: skip
    assert set(report["peak_bytes"]) == {"encode", "denoise", "decode"}
    assert 1 <= report["largest_batch"] < 8


def test_the_plan_of_this_machine_needs_no_word_about_it(run: Run) -> None:
    status, out, err = run("sprite", "--plan", "-o", "json")

    assert status == 0, err
    assert json.loads(out)["slower"] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((FLUX, "--plan", "--device", "cuda"), "say its memory, such as --memory 24GB"),
        ((FLUX, "--plan", "--device", "cuda", "--memory", "2GB"), "the smallest plan is --quantization nf4"),
        ((FLUX, "--plan", "--device", "cpu", "--memory", "4GB"), "the smallest plan is --quantization nf4"),
        ((FLUX, "--plan", "--device", "cuda", "--memory", "24"), "write it as 12GB or 11GiB"),
        ((FLUX, "--plan", "--device", "cpu", "--offload", "model"), "needs a GPU"),
        ((FLUX, "--plan", "--device", "tpu"), "device: "),
        ((FLUX, "--plan", "--quantization", "int2", "--memory", "24GB"), "quantization: "),
        ((FLUX, "--memory", "24GB"), "go with --plan"),
        (("org/name", "--plan", "--device", "cuda", "--memory", "24GB"), "hf download org/name"),
    ],
)
def test_what_makes_no_plan_is_refused_in_one_line(run: Run, arguments: tuple[str, ...], named: str) -> None:
    status, out, err = run(*arguments)

    assert status != 0
    assert out == ""
    assert named in err
    assert len(err.splitlines()) == 1
