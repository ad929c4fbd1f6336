"""The recipe of sprite, from artwork to a loaded pipeline, on a few pictures and a few steps a stage."""

import json
import os
import signal
from pathlib import Path
from random import Random

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")
pytest.importorskip("sentencepiece", reason="pip install -r training/sprite/requirements.txt")

from training.sprite import paths
from training.sprite.data import scenes, tokens
from training.sprite.judging import evaluate, judge
from training.sprite.networks import autoencoder, network, text
from training.sprite.networks.checkpoints import load, save, stoppable
from training.sprite.stages import export, flow, patches, restore, settling, shards
from training.sprite.stages.batches import Shares

# What torch, transformers and diffusers hint at in passing is not what is tested here.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


ALL_WHOLE = Shares(other_sizes=0)


def test_every_stage_runs_and_the_exported_folder_draws(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SCENES", 16)
    tokens.train_tokenizers(lines=3000)
    autoencoder.train(autoencoder.Schedule(steps=2, anneal=1, whole_pictures=1, batch=4, checked=2))
    text.train(text.Schedule(steps=2, anneal=1, batch=8, checked=8))
    shards.measure_normalisation(8)
    shards.encode_shards(range(3))
    flow.train(flow.Schedule(steps=2, anneal=1, batch=4, most_shards=1, blocks=network.FIRST_BLOCKS))
    patches.train(patches.Schedule(steps=2, draws=1, batch=8))
    flow.train(flow.Schedule(steps=4, anneal=1, batch=12, most_shards=1, shares=ALL_WHOLE, settled_share=1))
    prices = load(work / network.CHECKPOINT)["prices"]
    assert prices.any()
    assert 0 <= prices.min() <= prices.max() <= settling.DEAREST
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4, checked=4))
    export.export(work / "sprite")
    monkeypatch.setattr(evaluate, "PACKAGE_FOLDER", work / "sprite")
    monkeypatch.setattr(evaluate, "FEWEST", 1)
    measured = list(evaluate.evaluate((1, 2), 0.01))

    pipeline = FluxPipeline.from_pretrained(work / "sprite", torch_dtype=torch.bfloat16)
    drawn = pipeline("a fox", num_inference_steps=1, max_sequence_length=32, height=64, width=96).images[0]
    assert drawn.size == (96, 64)
    assert {row.name: len(row.reached) for row in measured if row.name in ("one thing", "autoencoder, dB PSNR")} == {
        "one thing": 2,
        "autoencoder, dB PSNR": 1,
    }
    assert all(0 <= share <= 1 for row in measured if row.wanted < 1 for share in row.reached)
    assert len(evaluate.table(measured, (1, 2)).splitlines()) == len(measured) + 2


def test_the_row_of_what_negative_prompts_remove_is_of_both_kinds_of_trials(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {(0, 4): 1.0, (0, 32): 0.75, (1, 4): 0.5, (1, 32): 0.25}  # of things and of backgrounds, by steps
    monkeypatch.setattr(evaluate, "_removed", lambda pipeline, looking, steps, trials: gone[trials[0], steps])

    both, of_things, of_backgrounds = evaluate._negative_rows(None, None, (4, 32), 8)  # type: ignore[arg-type]

    assert (both.reached, both.trials) == ((0.75, 0.5), 16)
    assert (of_things.reached, of_things.trials) == ((1.0, 0.75), 8)
    assert (of_backgrounds.reached, of_backgrounds.trials) == ((0.5, 0.25), 8)


def test_a_stopped_stage_goes_on_from_its_checkpoint(
    work: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.train(judge.Schedule(steps=1, anneal=1, batch=4, warm_up=1, checked=4))
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4, warm_up=1, checked=4))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "art").symlink_to(work / "art")
    monkeypatch.setenv("SPRITE_WORK", str(elsewhere))
    judge.train(judge.Schedule(steps=2, anneal=1, batch=4, warm_up=1, checked=4))

    stopped, straight = load(work / judge.CHECKPOINT)["weights"], load(elsewhere / judge.CHECKPOINT)["weights"]
    assert all(torch.equal(stopped[name], value) for name, value in straight.items())


def test_training_goes_on_from_the_shipped_weights(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SCENES", 32)
    restore.restore()
    shipped = load(work / network.CHECKPOINT)["average"]
    shards.encode_shards(range(1))

    flow.train(flow.Schedule(steps=flow.FIRST_STEPS + 1, anneal=1, batch=4, most_shards=1, asking_steps=50))

    (asked,) = (json.loads(line)["layout"] for line in (work / "asking.jsonl").read_text().splitlines())
    assert asked < 5  # 9 before it has learnt anything
    after = load(work / network.CHECKPOINT)
    assert after["step"] == flow.FIRST_STEPS + 1
    away = [(after["weights"][name] - value).abs().max() for name, value in shipped.items()]
    assert 0 < max(away) < 1e-3


def test_an_export_goes_a_share_of_the_way_from_the_folder(work: Path) -> None:
    restore.restore()
    export.export(work / "sprite")
    state = load(work / network.CHECKPOINT)
    before = state["average"]["proj_out.bias"].clone()
    state["average"]["proj_out.bias"] += 1
    save(work / network.CHECKPOINT, state)

    export.export(work / "sprite", share=0.25)

    after = FluxTransformer2DModel.from_pretrained(work / "sprite" / "transformer").state_dict()
    assert torch.allclose(after["proj_out.bias"].float(), before + 0.25, atol=0.01)


def test_what_an_encoder_has_been_used_for_keeps_it_from_training(work: Path) -> None:
    (work / network.CHECKPOINT).touch()

    with pytest.raises(SystemExit, match="--decoder-only"):
        autoencoder.train(autoencoder.Schedule(steps=2))


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
