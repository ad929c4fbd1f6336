"""The recipe of sprite, from artwork to a loaded pipeline, on a few pictures and a few steps a stage."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")
pytest.importorskip("sentencepiece", reason="pip install -r training/sprite/requirements.txt")

from training.sprite import artwork, autoencoder, distil, export, flow, judge, patches, paths, shards, text, tokens
from training.sprite.checkpoints import load

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
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4))
    export.export(work / "sprite")

    pipeline = FluxPipeline.from_pretrained(work / "sprite", torch_dtype=torch.bfloat16)
    drawn = pipeline("a fox", num_inference_steps=1, max_sequence_length=32, height=128, width=192).images[0]
    assert drawn.size == (192, 128)


def test_a_stopped_stage_goes_on_from_its_checkpoint(work: Path) -> None:
    judge.train(judge.Schedule(steps=1, anneal=1, batch=4))
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4))

    assert load(work / judge.CHECKPOINT)["step"] == 2
