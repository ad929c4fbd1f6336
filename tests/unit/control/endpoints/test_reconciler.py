from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from safelight.control.endpoints import reconciler
from safelight.control.endpoints.deployments import (
    DeploymentBody,
    DeploymentSpec,
    delete_deployment,
    desired_spec,
    get_deployment,
    put_deployment,
)
from safelight.control.endpoints.endpoints import EndpointSpec, delete_endpoint, find_endpoint, get_endpoint
from safelight.control.secrets.connections import ConnectionSpec, delete_connection, list_secret_reads, put_connection
from safelight.control.store.tables import OperationStatus, ProvisioningState
from safelight.errors import EngineFailure, ModelLoadError, UnsupportedModel
from tests.fakes import until
from tests.unit.control.world import BLUE, GATED, Run, World


def test_a_deployment_is_started_published_and_recorded(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        operation = await world.put_deployment()

        assert operation.status is OperationStatus.SUCCEEDED
        assert world.routes.serving("flux")["blue"] is world.starter.started[0]
        with world.database.transaction() as session:
            assert get_deployment(session, "flux", "blue").provisioning_state is ProvisioningState.SUCCEEDED

    run(scenario)


def test_an_update_switches_before_it_stops_what_was(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        two = DeploymentSpec(model="sprite", instance_count=2)
        await world.put_deployment(DeploymentBody(endpoint_name="flux", name="blue", spec=two))

        before, after = world.starter.started
        assert world.routes.serving("flux")["blue"] is after
        assert after.deployment.spec.instance_count == 2
        await until(lambda: before.is_stopped)

    run(scenario)


def test_a_failed_update_keeps_the_old_one_serving_and_says_why(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        world.starter.fails_with = ModelLoadError("vae/config.json is missing")
        operation = await world.put_deployment()

        (before,) = world.starter.started
        assert (operation.status, operation.error_code) == (OperationStatus.FAILED, "BadArgument")
        assert world.routes.serving("flux")["blue"] is before
        assert not before.is_stopped
        logs = world.logs.of("flux", "blue").read()
        assert "vae/config.json is missing" in logs
        assert "what was deployed before keeps serving" in logs
        with world.database.transaction() as session:
            deployment = get_deployment(session, "flux", "blue")
        assert deployment.provisioning_state is ProvisioningState.FAILED
        assert deployment.error_message == "vae/config.json is missing"

    run(scenario)


def test_a_log_that_cannot_be_written_fails_no_deployment(run: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder")

    async def scenario(world: World) -> None:
        await world.put_endpoint()

        assert (await world.put_deployment()).status is OperationStatus.SUCCEEDED
        world.starter.fails_with = ModelLoadError("vae/config.json is missing")
        assert (await world.put_deployment()).status is OperationStatus.FAILED

    run(scenario)


def test_after_a_restart_endpoints_serve_again_without_a_command(run: Run) -> None:
    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()

    async def after(world: World) -> None:
        await world.reconciler.wait_until_restored()

        assert world.routes.serving("flux")["blue"].deployment.spec == BLUE.spec

    run(before)
    run(after)


def test_what_a_restart_cannot_bring_back_at_once_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RETRY_LOST_S", 0.01)

    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()

    async def after(world: World) -> None:
        world.starter.fails_with = EngineFailure("no CUDA device yet")
        await world.reconciler.wait_until_restored()
        assert world.shown() == (ProvisioningState.FAILED, "no CUDA device yet")
        world.starter.fails_with = None

        await until(lambda: "blue" in world.routes.serving("flux"))

        await until(lambda: world.shown() == (ProvisioningState.SUCCEEDED, None))
        assert len(world.starter.started) == 1
        logs = world.logs.of("flux", "blue").read()
        assert (logs.count("the server has started again"), "trying again" in logs) == (1, True)

    run(before)
    run(after)


def test_what_can_never_load_is_not_tried_again_until_it_is_deployed_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a FLUX.1 Fill that an older version served."""
    monkeypatch.setattr(reconciler, "RETRY_LOST_S", 0.01)

    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.put_deployment(replace(BLUE, name="green"))

    async def after(world: World) -> None:
        world.starter.fails_with = UnsupportedModel("a FluxFillPipeline, which Safelight does not serve")
        await world.reconciler.wait_until_restored()
        world.starter.fails_with = EngineFailure("no CUDA device yet")
        await world.put_deployment(replace(BLUE, name="green"))
        world.starter.fails_with = None
        await world.put_deployment(replace(BLUE, name="green"))
        await until(lambda: "green" in world.routes.serving("flux"))

        assert "blue" not in world.routes.serving("flux")
        assert world.shown() == (ProvisioningState.FAILED, "a FluxFillPipeline, which Safelight does not serve")
        assert "trying again" not in world.logs.of("flux", "blue").read()
        await world.put_deployment()
        assert "blue" in world.routes.serving("flux")

    run(before)
    run(after)


def test_an_update_that_fails_leaves_what_was_lost_to_be_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    two = DeploymentBody(endpoint_name="flux", name="blue", spec=DeploymentSpec(model="sprite", instance_count=2))

    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()

    async def after(world: World) -> None:
        world.starter.fails_with = EngineFailure("no CUDA device yet")
        await world.reconciler.wait_until_restored()
        assert (await world.put_deployment(two)).status is OperationStatus.FAILED
        world.starter.fails_with = None

        await until(lambda: "blue" in world.routes.serving("flux"))

        assert world.routes.serving("flux")["blue"].deployment.spec == BLUE.spec
        assert world.shown() == (ProvisioningState.FAILED, "no CUDA device yet")

    run(before)
    monkeypatch.setattr(reconciler, "RETRY_LOST_S", 0.05)
    run(after)


def test_what_was_lost_and_then_deleted_is_not_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RETRY_LOST_S", 0.01)

    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.put_deployment(replace(BLUE, name="green"))

    async def after(world: World) -> None:
        world.starter.fails_with = EngineFailure("no CUDA device yet")
        await world.reconciler.wait_until_restored()
        await world.do(lambda session: delete_deployment(session, "flux", "green"))
        world.starter.fails_with = None
        await until(lambda: "blue" in world.routes.serving("flux"))
        assert [each.deployment.name for each in world.starter.started] == ["blue"]
        await world.do(lambda session: delete_endpoint(session, "flux"))

        assert world.routes.endpoints == {}

    run(before)
    run(after)


def test_after_a_failed_update_a_restart_brings_back_what_served(run: Run) -> None:
    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        world.starter.fails_with = ModelLoadError("no such file")
        await world.put_deployment(
            DeploymentBody(endpoint_name="flux", name="blue", spec=DeploymentSpec(model="sprite", instance_count=3))
        )

    async def after(world: World) -> None:
        await world.reconciler.wait_until_restored()

        assert world.routes.serving("flux")["blue"].deployment.spec.instance_count == 1

    run(before)
    run(after)


def test_while_it_comes_back_a_deployment_is_known_but_not_ready(run: Run) -> None:
    async def before(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()

    async def after(world: World) -> None:
        state, serving = world.routes.endpoints["flux"]

        assert state.deployment_names == {"blue"}
        assert serving == {}

    run(before)
    run(after)


def test_an_update_keeps_the_revision_that_serves_until_it_names_another(run: Run) -> None:
    def body(model: str, instance_count: int = 1) -> DeploymentBody:
        spec = DeploymentSpec(model=model, instance_count=instance_count)
        return DeploymentBody(endpoint_name="flux", name="blue", spec=spec)

    async def scenario(world: World) -> None:
        await world.put_endpoint()
        world.starter.folder = Path("/hub/models--acme--tiny/snapshots/c0ffee")
        await world.put_deployment(body("acme/tiny"))
        await world.put_deployment(body("acme/tiny", instance_count=2))
        await world.put_deployment(body("acme/tiny@v2"))
        await world.put_deployment(body("acme/other"))

        assert world.starter.revisions == [None, "c0ffee", "v2", None]

    run(scenario)


def test_a_gated_model_gets_its_token_from_the_connection_by_itself(run: Run) -> None:
    async def scenario(world: World) -> None:
        with world.database.transaction() as session:
            spec = ConnectionSpec(name="HuggingFaceTokenConnection", credentials={"HF_TOKEN": "hf_secret"})
            put_connection(session, world.cipher, spec)
        await world.put_endpoint()
        await world.put_deployment(GATED)

        assert world.starter.fetched == [("black-forest-labs-flux.1-schnell", {"HF_TOKEN": "hf_secret"})]
        assert "hf_secret" not in world.logs.of("flux", "blue").read()

    run(scenario)


def test_a_gated_model_without_the_connection_fails_with_secrets_injection_error(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        operation = await world.put_deployment(GATED)

        assert operation.error_code == "SecretsInjectionError"
        assert "safelight connection create" in (operation.error_message or "")
        assert world.starter.fetched == []

    run(scenario)


def test_a_secret_that_was_read_before_another_was_missing_is_in_the_audit_log(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        with world.database.transaction() as session:
            put_connection(session, world.cipher, ConnectionSpec(name="hub", credentials={"HF_TOKEN": "hf_secret"}))
        variables = {
            "HF_TOKEN": "${{azureml://connections/hub/credentials/HF_TOKEN}}",
            "OTHER": "${{azureml://connections/missing/credentials/KEY}}",
        }
        spec = DeploymentSpec(model="sprite", environment_variables=variables)
        operation = await world.put_deployment(DeploymentBody(endpoint_name="flux", name="blue", spec=spec))

        assert operation.error_code == "SecretsInjectionError"
        with world.database.transaction() as session:
            lines = list_secret_reads(session)
        assert [(line.connection_name, line.part) for line in lines] == [("hub", "credentials/HF_TOKEN")]

    run(scenario)


def test_a_restart_needs_neither_the_connection_nor_the_hub(run: Run) -> None:
    async def before(world: World) -> None:
        with world.database.transaction() as session:
            spec = ConnectionSpec(name="HuggingFaceTokenConnection", credentials={"HF_TOKEN": "hf_secret"})
            put_connection(session, world.cipher, spec)
        await world.put_endpoint()
        await world.put_deployment(GATED)
        with world.database.transaction() as session:
            delete_connection(session, "HuggingFaceTokenConnection")

    async def after(world: World) -> None:
        await world.reconciler.wait_until_restored()

        assert world.starter.fetched == []
        assert world.routes.serving("flux")["blue"].deployment.environment == {"HF_TOKEN": "hf_secret"}
        with world.database.transaction() as session:
            newest, _ = list_secret_reads(session)
        assert (newest.reader, newest.connection_name, newest.part) == (
            "restart of the server",
            "deployment flux/blue",
            "environment/HF_TOKEN",
        )

    run(before)
    run(after)


def test_deleting_a_deployment_stops_it_after_its_requests_are_sent_elsewhere(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.do(lambda session: delete_deployment(session, "flux", "blue"))

        assert world.routes.serving("flux") == {}
        assert world.starter.started[0].is_stopped

    run(scenario)


def test_deleting_an_endpoint_takes_its_deployments_along(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.do(lambda session: delete_endpoint(session, "flux"))

        assert world.routes.endpoints == {}
        assert world.starter.started[0].is_stopped
        with world.database.transaction() as session:
            assert find_endpoint(session, "flux") is None

    run(scenario)


def test_new_keys_do_not_bring_back_an_endpoint_that_is_being_deleted(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        blue = world.starter.started[0]
        blue.may_stop.clear()
        deleting = asyncio.create_task(world.do(lambda session: delete_endpoint(session, "flux")))
        await until(lambda: not world.routes.endpoints)

        await world.reconciler.publish("flux")
        blue.may_stop.set()
        await deleting
        await until(lambda: not world.routes.endpoints)

        assert blue.is_stopped

    run(scenario)


def test_new_traffic_is_published(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.put_endpoint(EndpointSpec(name="flux", traffic={"blue": 100}))

        assert world.routes.endpoints["flux"][0].traffic == {"blue": 100}
        with world.database.transaction() as session:
            assert get_endpoint(session, "flux").provisioning_state is ProvisioningState.SUCCEEDED

    run(scenario)


def test_a_stopped_server_takes_its_operation_up_again_at_the_next_start(run: Run) -> None:
    ids = []

    async def before(world: World) -> None:
        await world.put_endpoint()
        world.starter.may_start.clear()
        with world.database.transaction() as session:
            ids.append(put_deployment(session, BLUE)[1].id)
        world.reconciler.wake()

    async def after(world: World) -> None:
        await until(lambda: world.operation(ids[0]).status is not OperationStatus.IN_PROGRESS)

        assert world.operation(ids[0]).status is OperationStatus.SUCCEEDED
        with world.database.transaction() as session:
            assert desired_spec(get_deployment(session, "flux", "blue")) == BLUE.spec

    run(before)
    run(after)
