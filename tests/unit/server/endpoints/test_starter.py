"""A deployment starts with what it decides for itself, and with the server's settings else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp

from safelight.control.endpoints.deployments import AppliedDeployment, DeploymentSpec
from safelight.control.endpoints.logs import DeploymentLog
from safelight.errors import ConfigurationError, ModelLoadError, SafelightError
from safelight.library_variables import SETTING_VARIABLES
from safelight.server.endpoints.starter import DeploymentStarter
from safelight.serving.backends.protocol import Launch, Replicas
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import DeploymentSettings, Settings
from tests.fakes import fake_replicas

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def deployment(folder: Path, **variables: str) -> AppliedDeployment:
    spec = DeploymentSpec(
        model=str(folder),
        instance_count=2,
        request_timeout_s=7.0,
        max_concurrent_requests_per_instance=3,
        max_queue_wait_s=5.0,
        environment_variables=variables,
    )
    return AppliedDeployment(endpoint_name="flux", name="blue", spec=spec, folder=folder, environment=variables)


async def test_a_deployment_decides_its_replicas_timeouts_and_queue(model_folder: Path, tmp_path: Path) -> None:
    served: list[tuple[DeploymentSettings, Dispatcher]] = []

    def create_app(settings: DeploymentSettings, dispatcher: Dispatcher) -> ASGIApp:
        served.append((settings, dispatcher))
        return Starlette()

    server = Settings(replicas=1, request_timeout_s=100.0, max_queued_requests=9, loras=("server=a.safetensors",))
    starter = DeploymentStarter(server, fake_replicas(), create_app)

    serving = await starter.start(deployment(model_folder), DeploymentLog(tmp_path / "logs"))
    await serving.stop()

    ((decided, dispatcher),) = served
    assert decided == DeploymentSettings(
        model=str(model_folder),
        replicas=2,
        request_timeout_s=7.0,
        max_concurrent_requests_per_instance=3,
        max_queued_requests=6,
        max_queue_wait_s=5.0,
    )
    assert len(dispatcher.snapshot().replicas) == 2


async def test_files_that_are_broken_are_refused_before_any_replica_is_started(
    model_folder: Path, tmp_path: Path
) -> None:
    weights = model_folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    def replicas_of(launch: Launch) -> Replicas:
        raise AssertionError("a replica was started")

    starter = DeploymentStarter(Settings(), replicas_of, lambda *_: Starlette())

    with pytest.raises(ModelLoadError, match=r"vae/diffusion_pytorch_model\.safetensors cannot be read: its"):
        await starter.start(deployment(model_folder), DeploymentLog(tmp_path / "logs"))


@pytest.mark.parametrize("loras", ["film", "film=a.safetensors:99", "film=,", "a=b.safetensors,a=b.safetensors"])
async def test_loras_that_make_no_sense_are_refused_with_the_variable_that_says_them(
    model_folder: Path, tmp_path: Path, loras: str
) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"")
    said = loras.replace("b.s", f"{tmp_path}/b.s")
    starter = DeploymentStarter(Settings(), fake_replicas(), lambda *_: Starlette())

    with pytest.raises(ConfigurationError, match=r"^environment variable SAFELIGHT_LORAS of the deployment: \w"):
        await starter.start(deployment(model_folder, SAFELIGHT_LORAS=said), DeploymentLog(tmp_path / "logs"))


SECRET = "c2VjcmV0LXRva2Vu"
FORMS = ("{}", "{}==", "a={}", "{}=a", "a=https://user:{}@hub.example/a?b", "a=b/c?token={}", "a={}/b", "a={}/b/c.d:2")


@pytest.mark.parametrize("variable", sorted(SETTING_VARIABLES))
async def test_no_error_repeats_what_a_secret_says_whichever_variable_it_stands_in(
    model_folder: Path, tmp_path: Path, variable: str
) -> None:
    reference = "${{azureml://connections/hub/credentials/token}}"
    (tmp_path / SECRET).mkdir()
    for form in (*FORMS, f"a={tmp_path}/{{}}"):
        written = deployment(model_folder, **{variable: reference})
        resolved = replace(written, environment={variable: form.format(SECRET)})
        starter = DeploymentStarter(Settings(), fake_replicas(), lambda *_: Starlette())

        with pytest.raises(SafelightError) as caught:
            await starter.start(resolved, DeploymentLog(tmp_path / "logs"))

        assert SECRET not in caught.value.message
        assert f"environment variable {variable} of the deployment: " in caught.value.message
    assert SECRET not in "".join(each.read_text() for each in (tmp_path / "logs").rglob("*") if each.is_file())
