"""A real network behind the gate: from the first request of a deployment to its picture, with the real commands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.e2e.pictures import open_picture
from tests.e2e.processes import run_safelight, running_server
from tests.fake_hub import GOOD_TOKEN, fake_hub

HUB_ID = "black-forest-labs/FLUX.1-schnell"
MODEL_URI = "azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/labels/latest"
REQUEST = {"inputs": "astronaut", "parameters": {"width": 64, "height": 64, "num_inference_steps": 2, "seed": 7}}


def test_a_gated_model_goes_from_a_token_to_a_picture_through_the_endpoint(
    tiny_flux_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(GOOD_TOKEN)
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    with fake_hub(tiny_flux_folder, repo_id=HUB_ID) as hub:
        env = {
            "SAFELIGHT_DATA_DIR": str(tmp_path / "data"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        with running_server(env=env) as server:
            run("connection create -n HuggingFaceTokenConnection --secret-file HF_TOKEN=token", env, tmp_path)
            secrets = "--set properties.enforce_access_to_default_secret_stores=enabled"
            run(f"online-endpoint create -n flux {secrets}", env, tmp_path)
            run(f"online-deployment create -n blue -e flux --model {MODEL_URI} --all-traffic", env, tmp_path)
            key = json.loads(run("online-endpoint get-credentials -n flux", env, tmp_path))["primaryKey"]
            logs = run("online-deployment get-logs -n blue -e flux", env, tmp_path)
            answer = httpx.post(
                f"{server.url}/endpoints/flux/score",
                json=REQUEST,
                headers={"Authorization": f"Bearer {key}", "Accept": "image/png"},
                timeout=60,
            )
        assert "transformer/diffusion_pytorch_model.safetensors" in hub.downloads
    offline = env | {"HF_HUB_OFFLINE": "1"}
    options = "--width 64 --height 64 --steps 2 --seed 7 -o alone.png"
    run(f"generate astronaut --model {HUB_ID} {options}", offline, tmp_path)

    assert answer.status_code == 200, answer.text
    assert open_picture(answer.content).tobytes() == open_picture(tmp_path / "alone.png").tobytes()
    assert re.search(rf"Downloading {HUB_ID}: [\d.]+ of [\d.]+ [kM]B \(\d%\)", logs), logs
    assert "(100%)" in logs
    assert GOOD_TOKEN not in logs + server.text


def run(command: str, env: Mapping[str, str], cwd: Path) -> str:
    done = run_safelight(*command.split(), env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout
