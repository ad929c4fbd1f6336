"""What was set reaches the replicas, whoever set it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from safelight.errors import ConfigurationError
from safelight.model.spec import LoraFile
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.backends.protocol import Launch, Replicas
from safelight.serving.messages import Load, encode_frame, gateway_messages
from safelight.serving.start import create_dispatcher
from safelight.settings import DeploymentSettings, EngineOptions, Settings
from tests.fakes import FAKE_SPEC

CHANGED = {
    "device": "cpu",
    "dtype": "float16",
    "quantization": "int8",
    "text_encoder_2_quantization": "nf4",
    "offload": "none",
    "vae_tiling": "on",
    "compile": "on",
    "memory": "2000000000",
    "num_threads": "3",
    "max_batch_size": "5",
    "prompt_cache_bytes": "1",
    "lora_cache_bytes": "2",
}


def loads(settings: Settings, deployment: DeploymentSettings | None = None) -> list[Load]:
    """What each replica is told to load, as it reads it."""
    launched: list[LocalReplicas] = []

    def create_replicas(launch: Launch) -> Replicas:
        launched.append(LocalReplicas(launch))
        return launched[-1]

    create_dispatcher(create_replicas, settings, Path("/nowhere"), FAKE_SPEC, deployment=deployment)
    frames = [encode_frame(each._load) for each in launched[0].members]
    messages = [gateway_messages.decode(frame[4:]) for frame in frames]
    return [each for each in messages if isinstance(each, Load)]


def test_a_path_that_cannot_be_told_to_a_replica_is_refused_by_its_name() -> None:
    folder = Path(os.fsdecode(b"/models/fl\xfcx"))
    lora = replace(FAKE_SPEC, loras=(LoraFile(name="film", file=str(folder / "film.safetensors")),))

    for place, spec in ((folder, FAKE_SPEC), (Path("/nowhere"), lora)):
        with pytest.raises(ConfigurationError, match="has bytes in its name that are no UTF-8; rename it"):
            create_dispatcher(LocalReplicas, Settings(), place, spec)


def test_every_option_of_the_engine_can_be_set_and_reaches_each_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHANGED.keys() == EngineOptions.model_fields.keys()
    for name, value in CHANGED.items():
        monkeypatch.setenv(f"SAFELIGHT_{name.upper()}", "2GB" if name == "memory" else value)

    first, second = loads(Settings(replicas=2))

    assert {name: str(value) for name, value in first.options.model_dump().items()} == CHANGED
    assert second.options == first.options


def test_a_deployment_has_as_many_replicas_as_it_says_and_computes_as_the_server_does() -> None:
    deployment = DeploymentSettings(replicas=3)

    options = [load.options for load in loads(Settings(dtype="float16"), deployment)]

    assert [each.dtype for each in options] == ["float16"] * 3


def test_an_option_that_no_setting_would_allow_is_no_message() -> None:
    (load,) = loads(Settings())
    frame = encode_frame(load)[4:].replace(b"\xa4auto", b"\xa4tpu9", 1)

    with pytest.raises(msgspec.ValidationError, match="tpu9"):
        gateway_messages.decode(frame)
