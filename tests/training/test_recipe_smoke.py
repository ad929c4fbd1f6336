"""The recipe of sprite, from artwork to a loaded pipeline, on a few pictures and a few steps a stage."""

import os
import shutil
import signal
from pathlib import Path
from random import Random

import pytest
import torch
from diffusers import FluxPipeline

pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")
pytest.importorskip("sentencepiece", reason="pip install -r training/sprite/requirements.txt")

from training.sprite import (
    artwork,
    autoencoder,
    distil,
    evaluate,
    export,
    flow,
    judge,
    patches,
    paths,
    restore,
    scenes,
    shards,
    text,
    tokens,
)
from training.sprite.checkpoints import load, stoppable

# What torch, transformers and diffusers hint at in passing is not what is tested here.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty work folder; artwork fetched before is taken from the usual one."""
    fetched = paths.work_folder() / "art"
    monkeypatch.setenv("SPRITE_WORK", str(tmp_path))
    if all((fetched / short / "package").exists() for short in artwork.PACKAGES):
        (tmp_path / "art").symlink_to(fetched)
    elif shutil.which("npm") is None:
        pytest.skip("the recipe fetches its artwork with npm")
    artwork.fetch_artwork()
    return tmp_path


def test_every_stage_runs_and_the_exported_folder_draws(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SCENES", 32)
    monkeypatch.setattr(distil, "PAIRS_PER_FILE", 8)
    tokens.train_tokenizers(lines=3000)
    autoencoder.train(autoencoder.Schedule(steps=2, anneal=1, whole_pictures=1, batch=4))
    text.train(text.Schedule(steps=2, anneal=1, batch=8))
    shards.measure_normalisation(16)
    shards.encode_shards(range(1))
    flow.train(flow.Schedule(steps=2, anneal=1, batch=4, most_shards=1, blocks=flow.FIRST_BLOCKS))
    patches.train(patches.Schedule(steps=2, draws=1, batch=8))
    flow.train(flow.Schedule(steps=4, anneal=1, batch=4, most_shards=1))
    distil.train(distil.Schedule(steps=2, anneal=1, batch=4, files=1, teacher_steps=2))
    assert distil.is_of_this_flow()
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4))
    export.export(work / "sprite")
    monkeypatch.setattr(evaluate, "PACKAGE_FOLDER", work / "sprite")
    measured = list(evaluate.evaluate((1, 2), 0.01))

    pipeline = FluxPipeline.from_pretrained(work / "sprite", torch_dtype=torch.bfloat16)
    drawn = pipeline("a fox", num_inference_steps=1, max_sequence_length=32, height=128, width=192).images[0]
    assert drawn.size == (192, 128)
    assert {row.name: len(row.reached) for row in measured if row.name in ("one thing", "autoencoder, dB PSNR")} == {
        "one thing": 2,
        "autoencoder, dB PSNR": 1,
    }
    assert all(0 <= share <= 1 for row in measured if row.wanted < 1 for share in row.reached)
    assert len(evaluate.table(measured, (1, 2)).splitlines()) == len(measured) + 2
    flow.train(flow.Schedule(steps=5, anneal=1, batch=4, most_shards=1))
    assert not distil.is_of_this_flow()


def test_a_stopped_stage_goes_on_from_its_checkpoint(work: Path) -> None:
    judge.train(judge.Schedule(steps=1, anneal=1, batch=4))
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4))

    assert load(work / judge.CHECKPOINT)["step"] == 2


def test_training_goes_on_from_the_shipped_weights(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SCENES", 32)
    restore.restore()
    shipped = load(work / flow.CHECKPOINT)["average"]
    shards.encode_shards(range(1))

    flow.train(flow.Schedule(steps=flow.FIRST_STEPS + 1, anneal=1, batch=4, most_shards=1))

    after = load(work / flow.CHECKPOINT)
    assert after["step"] == flow.FIRST_STEPS + 1
    assert not all(torch.equal(after["weights"][name], value) for name, value in shipped.items())


def test_sigterm_lets_a_stage_save_and_then_ends_the_recipe() -> None:
    before, saved = signal.getsignal(signal.SIGTERM), []

    def stage() -> None:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            saved.append(stop.is_set())

    with pytest.raises(SystemExit, match="start it again to go on"):
        stage()
    assert saved == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_held_out_is_never_trained_on() -> None:
    random = Random(1)

    assert not any(scenes.has_held_out_part(scenes.random_scene(random)) for _ in range(2000))
    assert all(scenes.has_held_out_part(scenes.held_out_scene(random)) for _ in range(200))


def test_shipped_weights_are_small_enough_to_come_with_the_package() -> None:
    files = [file for file in paths.PACKAGE_FOLDER.rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) < 60e6
    assert {file.suffix for file in files} == {".safetensors", ".json"}
