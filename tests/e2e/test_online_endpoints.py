"""Endpoints and deployments over HTTPS with replicas in processes: what requests meet, and what a crash leaves."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.online_client import WORKSPACE, OnlineClient, drawing, register_tiny_model
from tests.oidc_issuer import Issuer, oidc_issuer
from tests.online_server import OnlineServer, online_server
from tests.postgresql import postgresql_server


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with oidc_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[OnlineServer]:
    settings = {"SAFELIGHT_OIDC_ISSUER": issuer.url, "SAFELIGHT_MAX_BODY_BYTES": "4096"}
    with online_server(tmp_path_factory.mktemp("online"), settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: OnlineServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineClient]:
    """With an endpoint `flux` whose deployment `blue` takes all traffic."""
    with OnlineClient(server) as client:
        register_tiny_model(client, tmp_path_factory.mktemp("model"))
        client.create_endpoint()
        assert client.deploy()["status"] == "Succeeded"
        client.create_endpoint(traffic={"blue": 100})
        yield client


def test_a_score_request_is_answered_with_a_picture_in_json(client: OnlineClient) -> None:
    response = client.draw(client.key())

    assert response.status_code == 200
    assert response.headers["azureml-model-deployment"] == "blue"
    assert base64.b64decode(response.json()).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "host"), [("/endpoints/FLUX/score", None), ("/score", "flux.localhost"), ("/score", None)]
)
def test_an_endpoint_is_reached_by_path_host_and_key(client: OnlineClient, path: str, host: str | None) -> None:
    headers = {} if host is None else {"host": host}

    assert client.draw(client.key(), path, **headers).headers["azureml-model-deployment"] == "blue"


def test_at_the_root_without_the_key_of_an_endpoint_the_servers_own_model_answers(client: OnlineClient) -> None:
    response = client.draw(None, "/score")

    assert response.status_code == 200
    assert "azureml-model-deployment" not in response.headers


@pytest.mark.parametrize("key", [None, "wrong"])
def test_an_endpoint_needs_its_key_even_on_loopback(client: OnlineClient, key: str | None) -> None:
    response = client.draw(key)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("path", "deployment", "message"),
    [
        ("/endpoints/nobody/score", None, "no endpoint 'nobody'"),
        ("/endpoints/flux/score", "green", "no deployment 'green' that serves (it has: blue)"),
        ("/endpoints/flux/v1/nothing", None, "Invalid URL"),
    ],
)
def test_what_is_not_there_is_404_and_says_what_is(
    client: OnlineClient, path: str, deployment: str | None, message: str
) -> None:
    headers = {} if deployment is None else {"azureml_model_deployment": deployment}

    response = client.draw(client.key(), path, **headers)

    assert response.status_code == 404
    assert message in response.json()["error"]["message"]


def test_without_traffic_only_the_header_reaches_a_deployment(client: OnlineClient) -> None:
    client.create_endpoint("idle")
    client.deploy(endpoint="idle")
    key = client.key("idle")

    assert client.draw(key, "/endpoints/idle/score").status_code == 404
    assert client.draw(key, "/endpoints/idle/score", azureml_model_deployment="blue").status_code == 200


def test_a_deployment_has_metrics_of_its_own(client: OnlineClient) -> None:
    key = {"Authorization": f"Bearer {client.key()}"}
    client.draw(client.key())

    text = client.get("/endpoints/flux/metrics", headers=key).text

    assert "safelight_ready 1.0" in text
    assert "safelight_steps_run_total 0.0" not in text


def test_a_link_to_a_picture_of_an_endpoint_leads_to_it(client: OnlineClient) -> None:
    body = {"prompt": "Astronaut", "size": "64x64", "response_format": "url"}

    answer = client.draw(client.key(), "/endpoints/flux/v1/images/generations", body=body).json()
    picture = client.get(answer["data"][0]["url"])

    assert picture.content.startswith(b"\x89PNG")


def test_a_body_that_is_too_large_is_413(client: OnlineClient) -> None:
    assert client.draw(client.key(), body={"inputs": "x " * 5000}).status_code == 413


def test_a_bad_parameter_is_an_honest_400(client: OnlineClient) -> None:
    response = client.draw(client.key(), body={"inputs": "Astronaut", "parameters": {"width": 65}})

    assert response.status_code == 400
    assert "width" in response.json()["error"]["message"]


def test_a_regenerated_key_replaces_one_and_interrupts_no_other(client: OnlineClient) -> None:
    keys = client.arm("POST", "/onlineEndpoints/flux/listKeys", {}).json()
    client.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Secondary"})

    assert client.draw(keys["primaryKey"]).status_code == 200
    assert client.draw(keys["secondaryKey"]).status_code == 401


def test_an_aml_token_opens_its_endpoint_by_path_and_at_the_root(client: OnlineClient) -> None:
    client.create_endpoint("tokens", authMode="AMLToken")
    client.deploy(endpoint="tokens")
    token = client.arm("POST", "/onlineEndpoints/tokens/token", {}).json()

    for path in ("/endpoints/tokens/score", "/score"):
        assert client.draw(token["accessToken"], path, azureml_model_deployment="blue").status_code == 200
    assert client.draw("wrong", "/endpoints/tokens/score").status_code == 401
    assert token["expiryTimeUtc"] > token["refreshAfterTimeUtc"] > time.time()


def test_a_jwt_of_the_configured_issuer_opens_an_aad_endpoint(client: OnlineClient, issuer: Issuer) -> None:
    client.create_endpoint("aad", authMode="AADToken")
    client.deploy(endpoint="aad")
    path, blue = "/endpoints/aad/score", {"azureml_model_deployment": "blue"}
    forged = jwt.encode(issuer.claims(), rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "one"})

    for reached in (path, "/score"):
        assert client.draw(issuer.token(), reached, **blue).status_code == 200
    assert client.draw(issuer.token(), "/score", host="aad.localhost", **blue).status_code == 200
    assert client.draw(issuer.token(aud="https://other"), path, **blue).status_code == 401
    assert client.draw(forged, path, **blue).status_code == 401
    assert client.draw(forged, "/score", **blue).status_code == 401


def test_at_the_root_a_jwt_cannot_choose_between_several_endpoints(client: OnlineClient, issuer: Issuer) -> None:
    for name in ("aad-one", "aad-two"):
        client.create_endpoint(name, authMode="AADToken")

    answer = client.draw(issuer.token(), "/score")

    for name in ("aad-one", "aad-two"):
        client.finish(client.arm("DELETE", f"/onlineEndpoints/{name}"))
    assert answer.status_code == 404
    assert "put /endpoints/NAME before the path" in answer.json()["error"]["message"]


def test_no_request_fails_while_a_deployment_is_updated_scaled_and_traffic_moves(client: OnlineClient) -> None:
    key = client.key()

    with drawing(client, key) as statuses:
        assert (
            client.deploy(instances=2, requestSettings={"maxConcurrentRequestsPerInstance": 4})["status"] == "Succeeded"
        )
        assert client.deploy("green", requestSettings={"maxConcurrentRequestsPerInstance": 4})["status"] == "Succeeded"
        client.create_endpoint(traffic={"blue": 50, "green": 50})
        client.create_endpoint(traffic={"green": 100})
        assert client.finish(client.arm("DELETE", "/onlineEndpoints/flux/deployments/blue"))["status"] == "Succeeded"
    assert client.draw(key).headers["azureml-model-deployment"] == "green"
    assert set(statuses) == {200}

    client.deploy()
    client.create_endpoint(traffic={"blue": 100})
    client.finish(client.arm("DELETE", "/onlineEndpoints/flux/deployments/green"))


def test_a_failed_update_keeps_the_old_one_serving_and_says_why(client: OnlineClient) -> None:
    outcome = client.deploy(model="azureml:nothing:1")

    shown = client.arm("GET", "/onlineEndpoints/flux/deployments/blue").json()["properties"]
    assert (outcome["status"], shown["provisioningState"]) == ("Failed", "Failed")
    assert "no model 'azureml:nothing:1'" in shown["provisioningError"]["message"]
    logs = client.arm("POST", "/onlineEndpoints/flux/deployments/blue/getLogs", {"tail": 5}).json()["content"]
    assert "no model 'azureml:nothing:1'" in logs
    assert client.draw(client.key()).status_code == 200
    client.deploy()


def test_an_update_without_memory_for_both_keeps_the_old_one_serving_and_says_so(tmp_path: Path) -> None:
    no_memory = tmp_path / "no-memory"
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_KILL_ON_LOAD": str(no_memory)}) as server,
        OnlineClient(server) as client,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        client.deploy()
        no_memory.touch()

        outcome = client.deploy(instances=2)

        answer = client.draw(client.key(), azureml_model_deployment="blue")
        shown = client.arm("GET", "/onlineEndpoints/flux/deployments/blue").json()["properties"]
        logs = client.arm("POST", "/onlineEndpoints/flux/deployments/blue/getLogs", {}).json()["content"]
    assert (outcome["status"], answer.status_code) == ("Failed", 200)
    assert "by SIGKILL while loading the model" in shown["provisioningError"]["message"]
    assert "needs less" in shown["provisioningError"]["message"]
    assert "for the old and the new replicas at once" in shown["provisioningError"]["message"]
    assert logs.endswith("what was deployed before keeps serving\n")


def test_the_logs_of_a_deployment_tell_its_plan_and_that_pictures_take_longer_than_requests_may(tmp_path: Path) -> None:
    plan = "plan: transformer int8 in memory 12.0 GB; at most 22.2 GB of 25.8 GB"
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_PLAN": plan, "FAKE_ENGINE_PICTURE_S": "500"}) as server,
        OnlineClient(server) as client,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        client.deploy()

        logs = client.arm("POST", "/onlineEndpoints/flux/deployments/blue/getLogs", {}).json()["content"]
    assert f"{plan}\n" in logs
    assert "takes about 500 s here, and requests end after 180 s" in logs
    assert "as jobs (Prefer: respond-async), which have a day" in logs


def test_what_a_replica_said_before_it_ended_is_in_the_logs_without_secrets(tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    problem.write_text("shape (3, 4) with hf_very-secret")
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_RAISE_ON_LOAD": str(problem)}) as server,
        OnlineClient(server) as client,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()

        outcome = client.deploy(environmentVariables={"HF_TOKEN": "hf_very-secret"})

        logs = client.arm("POST", "/onlineEndpoints/flux/deployments/blue/getLogs", {}).json()["content"]
    assert "ended with status 1 while loading the model, 3 times in a row" in outcome["error"]["message"]
    assert "memory" not in outcome["error"]["message"]
    assert "Traceback (most recent call last):" in logs
    assert "the replica said: RuntimeError: shape (3, 4) with [hidden]\n" in logs
    assert "hf_very-secret" not in logs


def test_a_second_operation_on_the_same_endpoint_is_409(client: OnlineClient) -> None:
    first = client.begin_deploy()
    second = client.begin_deploy()
    client.finish(first)

    assert second.status_code == 409
    assert second.json()["error"]["code"] == "Conflict"


@pytest.mark.parametrize("token", [None, "wrong", "key of an endpoint"])
def test_the_control_plane_needs_the_administrators_token(client: OnlineClient, token: str | None) -> None:
    text = client.key() if token == "key of an endpoint" else token
    headers = {} if text is None else {"Authorization": f"Bearer {text}"}

    response = client.get(f"{WORKSPACE}/connections", headers=headers)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "AuthenticationFailed"


def test_paths_match_in_any_case_and_any_api_version_is_served(client: OnlineClient) -> None:
    response = client.get(f"{WORKSPACE.upper()}/ONLINEENDPOINTS/Flux?api-version=1999-01-01", headers=client.admin)

    assert response.json()["name"] == "flux"


def test_arm_errors_have_arms_form(client: OnlineClient) -> None:
    error = client.arm("GET", "/onlineEndpoints/nobody").json()["error"]

    assert (error["code"], error["details"]) == ("ResourceNotFound", [])
    assert "safelight online-endpoint list" in error["message"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The settings that choose a database."""
    if request.param == "sqlite":
        yield {}
        return
    with postgresql_server() as url:
        yield {"SAFELIGHT_DATABASE_URL": url}


def test_killed_with_its_endpoints_a_server_serves_them_again_with_the_same_key(
    tmp_path: Path, database: dict[str, str]
) -> None:
    data_dir = tmp_path / "data"
    with online_server(data_dir, database) as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        client.deploy()
        client.create_endpoint(traffic={"blue": 100})
        key, picture = client.key(), client.draw(client.key()).json()
        server.kill()

    with online_server(data_dir, database) as server, OnlineClient(server) as client:
        response = client.wait_until_it_draws(key)

    assert response.json() == picture


def test_killed_while_it_deploys_a_server_finishes_the_deployment_when_it_is_back(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with online_server(data_dir) as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        operation = client.begin_deploy().headers["azure-asyncoperation"].partition("/subscriptions")[2]
        server.kill()

    with online_server(data_dir) as server, OnlineClient(server) as client:
        begun = httpx.Response(200, headers={"azure-asyncoperation": f"/subscriptions{operation}"})
        assert client.finish(begun)["status"] == "Succeeded"
        assert client.draw(client.key(), azureml_model_deployment="blue").status_code == 200


def test_with_azures_status_codes_the_models_own_errors_are_424(tmp_path: Path) -> None:
    settings = {"SAFELIGHT_AZURE_STATUS_CODES": "true"}
    with online_server(tmp_path / "data", settings) as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        client.deploy()
        blue = {"azureml_model_deployment": "blue"}
        bad = {"inputs": "Astronaut", "parameters": {"width": 65}}
        response = client.draw(client.key(), body=bad, **blue)

        assert response.status_code == 424
        assert response.headers["ms-azureml-model-error-statuscode"] == "400"
        assert "width" in response.json()["error"]["message"]
        assert client.draw("wrong", **blue).status_code == 401


def test_a_full_endpoint_answers_429_and_a_slow_one_408(tmp_path: Path) -> None:
    """Twice as many requests are in flight as the deployment may work on; none of them ever ends."""
    gate = tmp_path / "gate"
    gate.write_text("0")
    with online_server(tmp_path / "data", {"FAKE_ENGINE_GATE": str(gate)}) as server, OnlineClient(server) as client:
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        requests = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT2S"}
        client.deploy(requestSettings=requests)
        key, blue = client.key(), {"azureml_model_deployment": "blue"}
        with ThreadPoolExecutor(5) as pool:
            responses = list(pool.map(lambda _: client.draw(key, **blue), range(5)))

    assert sorted(response.status_code for response in responses) == [408, 408, 429, 429, 429]
    assert all("retry-after" in each.headers for each in responses if each.status_code == 429)


def test_a_request_that_waits_longer_than_the_deployment_allows_is_429(tmp_path: Path) -> None:
    """One request is worked on and never ends; the other one waits for its place."""
    gate = tmp_path / "gate"
    gate.write_text("0")
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_GATE": str(gate)}) as server,
        OnlineClient(server) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        client.deploy(requestSettings={"requestTimeout": "PT20S", "maxQueueWait": "PT0.05S"})
        key = client.key()
        drawing = [pool.submit(client.draw, key, azureml_model_deployment="blue") for _ in range(2)]
        refused = next(as_completed(drawing)).result()
        gate.write_text("1000000000")
        statuses = sorted(each.result().status_code for each in drawing)

    assert statuses == [200, 429]
    assert "waited 0.05 s for its place" in refused.json()["error"]["message"]
    assert "retry-after" in refused.headers


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads what Linux shows of a process")
def test_a_replica_sees_the_variables_that_tune_its_libraries_and_the_rest_is_reported(client: OnlineClient) -> None:
    client.arm(
        "PUT", "/connections/tuning", {"properties": {"credentials": {"keys": {"CHUNKS": "max_split_size_mb:64"}}}}
    )
    client.create_endpoint("tuned", properties={"enforce_access_to_default_secret_stores": "enabled"})
    variables = {
        "PYTORCH_CUDA_ALLOC_CONF": "${{azureml://connections/tuning/credentials/CHUNKS}}",
        "OMP_WAIT_POLICY": "ACTIVE",
        "LD_PRELOAD": "/tmp/nothing.so",
        "MY_OWN": "value",
    }
    begun = client.begin_deploy(endpoint="tuned", environmentVariables=variables, instanceType="Standard_NC40ads")
    assert client.finish(begun)["status"] == "Succeeded"

    headers = {"Authorization": f"Bearer {client.key('tuned')}", "azureml-model-deployment": "blue"}
    (replica,) = client.get("/endpoints/tuned/health/ready", headers=headers).json()["replicas"]
    environment = Path(f"/proc/{replica['pid']}/environ").read_text().split("\0")
    assert {"PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64", "OMP_WAIT_POLICY=ACTIVE"} <= set(environment)
    assert not any(each.startswith(("LD_PRELOAD=", "MY_OWN=")) for each in environment)

    warnings = begun.json()["properties"]["warnings"]
    logs = client.arm("POST", "/onlineEndpoints/tuned/deployments/blue/getLogs", {}).json()["content"]
    assert warnings == client.arm("GET", "/onlineEndpoints/tuned/deployments/blue").json()["properties"]["warnings"]
    assert any("LD_PRELOAD, MY_OWN" in each for each in warnings)
    assert all(f"warning: {each}" in logs for each in warnings)


def test_a_replica_that_is_silent_for_longer_than_liveness_allows_is_replaced(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.write_text("0")
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_GATE": str(gate)}) as server,
        OnlineClient(server) as client,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        probe = {"period": "PT1S", "timeout": "PT1S", "failureThreshold": 1}
        client.deploy(requestSettings={"requestTimeout": "PT0.5S"}, livenessProbe=probe)
        headers = {"Authorization": f"Bearer {client.key()}", "azureml-model-deployment": "blue"}

        assert client.draw(client.key(), azureml_model_deployment="blue").status_code == 408
        replica = {"restarts": 0}
        while not replica["restarts"]:
            (replica,) = client.get("/endpoints/flux/health/ready", headers=headers).json()["replicas"]
            time.sleep(0.02)

    assert "did not answer for" in str(replica["detail"])


def test_a_replica_that_readiness_gives_up_fails_its_deployment(tmp_path: Path) -> None:
    with (
        online_server(tmp_path / "data", {"FAKE_ENGINE_LOAD_GATE": str(tmp_path / "never")}) as server,
        OnlineClient(server) as client,
    ):
        register_tiny_model(client, tmp_path / "model")
        client.create_endpoint()
        probe = {"initialDelay": "PT0S", "period": "PT1S", "timeout": "PT1S", "failureThreshold": 1}

        outcome = client.deploy(readinessProbe=probe)

    assert "did not load the model within 1 s" in outcome["error"]["message"]


def test_a_second_server_over_the_same_data_directory_is_refused(server: OnlineServer) -> None:
    with pytest.raises(AssertionError, match="another server uses data_dir"), online_server(server.data_dir):
        pass
