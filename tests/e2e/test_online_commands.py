"""The nouns of `az ml` against a running server over HTTPS, in the order of the model card."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from PIL import Image

from safelight.cli.main import main
from tests.checkpoint_files import write_checkpoint
from tests.fake_hub import GOOD_TOKEN, SHA, FakeHub, Gate, fake_hub
from tests.online_server import OnlineServer, online_server

MODEL_URI = "azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/labels/latest"
ENDPOINT_YAML = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: flux
auth_mode: key
properties:
  enforce_access_to_default_secret_stores: enabled
"""
DEPLOYMENT_YAML = f"""
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: flux
model: {MODEL_URI}
instance_type: Standard_NC40ads_H100_v5
instance_count: 1
request_settings:
  request_timeout_ms: 90000
  max_concurrent_requests_per_instance: 2
liveness_probe:
  initial_delay: 600
  failure_threshold: 30
"""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "model")
    with fake_hub(folder, repo_id="black-forest-labs/FLUX.1-schnell") as hub:
        yield hub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[OnlineServer]:
    with online_server(tmp_path_factory.mktemp("online"), {"HF_ENDPOINT": hub.endpoint}) as server:
        yield server


@pytest.fixture
def run(
    server: OnlineServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Runs a command as `safelight` does; its standard output, or what it says on standard error when it fails."""
    monkeypatch.setenv("SAFELIGHT_DATA_DIR", str(server.data_dir))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, input: str = "", said: Sequence[str] = ()) -> str:
        monkeypatch.setattr("sys.argv", ["safelight", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(input))
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        assert all(f"note: {each}\n" in printed.err for each in said), printed.err
        return printed.err if caught.value.code else printed.out

    return run


def test_the_order_of_the_model_card_ends_in_a_picture(run: Run, tmp_path: Path) -> None:
    (tmp_path / "endpoint.yml").write_text(ENDPOINT_YAML)
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT_YAML)
    (tmp_path / "token").write_text(GOOD_TOKEN + "\n")
    (tmp_path / "request.json").write_text(
        '{"inputs": "Astronaut", "parameters": {"width": 64, "height": 64, "seed": 7}}'
    )

    connection = ["--name", "HuggingFaceTokenConnection", "--type", "Generic", "--secret-file", "HF_TOKEN=token"]
    run("connection", "create", *connection, "--subscription", "s", "--resource-group", "g", "--workspace-name", "w")
    run("online-endpoint", "create", "-f", "endpoint.yml")
    deployment = json.loads(run("online-deployment", "create", "-f", "deployment.yml", "--all-traffic", "-o", "json"))
    assert deployment["provisioning_state"] == "Succeeded"
    assert deployment["request_settings"]["request_timeout_ms"] == 90_000

    run("online-endpoint", "invoke", "-n", "flux", "--request-file", "request.json", "--output-file", "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (64, 64)
    shown = yaml.safe_load(run("online-endpoint", "show", "-n", "flux", "-o", "yaml"))
    urls = [urlsplit(shown[each]).path for each in ("scoring_uri", "picture_uri", "openai_base_url")]
    assert urls == ["/endpoints/flux/score", "/endpoints/flux/predict", "/endpoints/flux/v1"]
    assert shown["traffic"] == {"blue": 100}
    assert "ready" in run("online-deployment", "get-logs", "-n", "blue", "-e", "flux", "--lines", "20")
    assert "move it first" in run("online-deployment", "delete", "-n", "blue", "-e", "flux", "--yes")

    run("online-deployment", "update", "-n", "blue", "-e", "flux", "--instance-count", "2")
    assert json.loads(run("online-deployment", "show", "-n", "blue", "-e", "flux"))["instance_count"] == 2
    keys = json.loads(run("online-endpoint", "get-credentials", "-n", "flux"))
    renewed = json.loads(run("online-endpoint", "regenerate-keys", "-n", "flux", "--key-type", "secondary"))
    assert renewed["primaryKey"] == keys["primaryKey"]
    assert renewed["secondaryKey"] != keys["secondaryKey"]

    run("online-endpoint", "update", "-n", "flux", "--traffic", "blue=0")
    run("online-deployment", "delete", "-n", "blue", "-e", "flux", "--yes")
    run("online-endpoint", "delete", "-n", "flux", "--yes")
    assert "flux" not in run("online-endpoint", "list")


@pytest.mark.parametrize(
    ("gate", "token", "reason"),
    [
        ("accepted", "hf_wrong", "does not accept the token"),
        ("never_requested", GOOD_TOKEN, "has never requested access"),
        ("pending", GOOD_TOKEN, "awaiting a review"),
        ("rejected", GOOD_TOKEN, "was rejected"),
        ("fine_grained", GOOD_TOKEN, "fine-grained"),
    ],
)
def test_each_refusal_of_the_hub_fails_the_deployment_with_its_remedy(
    run: Run, server: OnlineServer, hub: FakeHub, tmp_path: Path, gate: Gate, token: str, reason: str
) -> None:
    (tmp_path / "endpoint.yml").write_text(ENDPOINT_YAML.replace("name: flux", "name: gated"))
    run("connection", "create", "-n", "HuggingFaceTokenConnection", "--secret-file", "HF_TOKEN=-", input=token)
    run("online-endpoint", "create", "-f", "endpoint.yml")
    shutil.rmtree(server.data_dir / "hf", ignore_errors=True)
    hub.gate = gate

    answer = run("online-deployment", "create", "-n", "blue", "-e", "gated", "--model", MODEL_URI)
    hub.gate = "accepted"

    assert reason in answer
    shown = json.loads(run("online-deployment", "show", "-n", "blue", "-e", "gated"))
    assert (shown["provisioning_state"], reason in shown["error"]) == ("Failed", True)


def test_the_command_that_an_error_names_mends_it(run: Run) -> None:
    run("connection", "create", "-n", "HuggingFaceTokenConnection", "--secret-file", "HF_TOKEN=-", input=GOOD_TOKEN)
    run("online-endpoint", "create", "-n", "plain")
    deploy = ("online-deployment", "create", "-n", "blue", "--model", MODEL_URI, "-e")

    error = run(*deploy, "plain")
    (command,) = re.findall(r"run: safelight (.+?), then deploy to that endpoint", error)
    run(*command.replace("NEW-NAME", "reader").split())

    assert "SecretsInjectionError" in error
    assert json.loads(run(*deploy, "reader"))["provisioning_state"] == "Succeeded"


def test_a_folder_is_found_from_where_the_command_runs_unless_the_server_has_a_model_of_that_name(
    run: Run, hub: FakeHub, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("my-folder", "sprite")]
    for folder in folders:
        shutil.copytree(hub.folder, folder)
    run("online-endpoint", "create", "-n", "folders")
    create = ("online-deployment", "create", "-e", "folders", "--name", "blue", "--model")

    assert json.loads(run(*create, "./my-folder"))["model"] == str(folders[0])
    assert json.loads(run(*create, "my-folder"))["served_from"] == str(folders[0])
    assert json.loads(run(*create, "sprite"))["model"] == "sprite"
    assert json.loads(run(*create, "./sprite"))["model"] == str(folders[1])
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    assert f"{tmp_path / 'flux.gguf'} cannot be read: its head is not whole" in run(*create, "flux.gguf")
    assert "there is no such file or folder" in run(*create, "models/flux.gguf")


def test_a_proxy_to_the_outside_is_not_asked_for_a_picture(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "request.json").write_text('{"inputs": "Astronaut"}')
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    run("online-endpoint", "create", "-n", "near")
    run("online-deployment", "create", "-e", "near", "-n", "blue", "--model", "sprite", "--all-traffic")
    said = run("online-endpoint", "invoke", "-n", "near", "--request-file", "request.json", "--output-file", "a.png")

    assert (tmp_path / "a.png").exists(), said


def test_only_what_is_set_is_shown(run: Run) -> None:
    run("online-endpoint", "create", "-n", "shown")
    settings = ("--set", "request_settings.request_timeout_ms=90000")
    run("online-deployment", "create", "-e", "shown", "-n", "blue", "--model", "sprite", *settings)

    show = ("online-deployment", "show", "-e", "shown", "-n", "blue", "-o")

    set_ones = {"request_timeout_ms": 90_000, "max_concurrent_requests_per_instance": 1}
    assert json.loads(run(*show, "json"))["request_settings"] == set_ones
    assert "None" not in run(*show, "table")


def test_a_revision_can_be_pinned_and_is_shown(run: Run, hub: FakeHub) -> None:
    hub.gate = "accepted"
    run("connection", "create", "-n", "HuggingFaceTokenConnection", "--secret", f"HF_TOKEN={GOOD_TOKEN}")
    run(
        "online-endpoint",
        "create",
        "-n",
        "pinned",
        "--set",
        "properties.enforce_access_to_default_secret_stores=enabled",
    )
    create = ("online-deployment", "create", "-n", "blue", "-e", "pinned", "--model")

    assert f"no revision 'v9'; see {hub.endpoint}/{hub.repo_id}/commits" in run(*create, f"{hub.repo_id}@v9")
    shown = json.loads(run(*create, f"{hub.repo_id}@{SHA}"))

    assert (shown["model"], shown["served_revision"]) == (f"{hub.repo_id}@{SHA}", SHA)


def test_an_endpoint_that_was_created_without_access_to_secrets_cannot_be_given_it(run: Run) -> None:
    run("online-endpoint", "create", "-n", "shut")
    change = ("--set", "properties.enforce_access_to_default_secret_stores=enabled")

    for verb in ("update", "create"):
        refusal = run("online-endpoint", verb, "-n", "shut", *change)
        assert "enforce_access_to_default_secret_stores of endpoint 'shut' cannot be changed" in refusal
        assert "create a new endpoint" in refusal
    assert "enforce_access" not in run("online-endpoint", "show", "-n", "shut")


def test_a_folder_becomes_a_model_that_deployments_name(run: Run, hub: FakeHub) -> None:
    model = json.loads(run("model", "create", "--name", "mine", "--path", str(hub.folder)))
    run("online-endpoint", "create", "-n", "local")

    deployment = run("online-deployment", "create", "-n", "blue", "-e", "local", "--model", model["uri"])

    assert model["uri"] == "azureml:mine:1"
    assert json.loads(deployment)["served_from"] == str(hub.folder)


def test_what_a_deployment_asks_for_in_vain_is_said_when_it_is_made_and_when_it_is_shown(
    run: Run, hub: FakeHub, tmp_path: Path
) -> None:
    run("model", "create", "--name", "vain", "--path", str(hub.folder))
    run("online-endpoint", "create", "-n", "vain")
    (tmp_path / "deployment.yml").write_text(
        DEPLOYMENT_YAML.replace("endpoint_name: flux", "endpoint_name: vain").replace(MODEL_URI, "azureml:vain:1")
        + "environment: azureml:mine:1\nenvironment_variables: {MY_OWN: value}\n"
    )
    expected = [
        "environment has no effect: there is no container",
        "instance_type Standard_NC40ads_H100_v5 has no effect on your own machine: its devices are used",
        "environment variables without effect, because no replica reads them: MY_OWN",
    ]

    created = run("online-deployment", "create", "-f", "deployment.yml", said=expected)

    assert json.loads(created)["warnings"][:3] == expected
    assert json.loads(created)["liveness_probe"]["initial_delay"] == 600
    updated = run("online-deployment", "update", "-n", "blue", "-e", "vain", "--instance-count", "2", said=expected[1:])
    assert json.loads(updated)["liveness_probe"] == json.loads(created)["liveness_probe"]
    assert json.loads(run("online-deployment", "show", "-n", "blue", "-e", "vain"))["warnings"][:2] == expected[1:]
    logs = run("online-deployment", "get-logs", "-n", "blue", "-e", "vain")
    assert all(f"warning: {each}" in logs for each in expected)


def test_a_connection_is_changed_secret_by_secret(run: Run) -> None:
    run("connection", "create", "-n", "two", "--secret", "ONE=1", "--secret", "TWO=2")

    run("connection", "update", "-n", "two", "--secret-file", "TWO=-", "--set", "metadata.team=art", input="second\n")

    shown = json.loads(run("connection", "show", "-n", "two", "--populate-secrets"))
    assert shown["credentials"] == {"keys": {"ONE": "1", "TWO": "second"}}
    assert shown["metadata"] == {"team": "art"}
    assert "no connection 'three'" in run("connection", "update", "-n", "three", "--set", "target=x")


def test_a_closed_network_that_an_endpoint_does_not_get_is_said(run: Run) -> None:
    warning = "public_network_access Disabled has no effect: whoever reaches this server's address may ask"

    run("online-endpoint", "create", "-n", "closed", "--set", "public_network_access=disabled", said=[warning])

    run("online-endpoint", "update", "-n", "closed", "--set", "tags.team=art", said=[warning])
    assert json.loads(run("online-endpoint", "show", "-n", "closed"))["warnings"] == [warning]


def test_with_no_wait_the_command_returns_while_the_server_works(run: Run) -> None:
    begun = json.loads(run("online-endpoint", "create", "-n", "later", "--no-wait"))

    assert begun["provisioning_state"] == "Creating"


def test_a_secret_is_shown_only_when_it_is_asked_for_and_that_is_recorded(run: Run) -> None:
    run("connection", "create", "-n", "shown", "--secret-file", "KEY=-", input="s3cret\n")

    assert "s3cret" not in run("connection", "show", "-n", "shown") + run("connection", "list")
    assert json.loads(run("connection", "show", "-n", "shown", "--populate-secrets"))["credentials"] == {
        "keys": {"KEY": "s3cret"}
    }
    (newest, *_) = json.loads(run("connection", "list-secret-reads"))
    assert (newest["reader"], newest["connection"]) == ("administrator", "shown")


def test_a_secret_that_is_no_text_is_refused_in_a_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")

    said = run("connection", "create", "-n", "binary", "--secret-file", "KEY=secret")

    assert said == "error: secret is no text in UTF-8, and a secret is one\n"
    assert "hf_secret" not in run("connection", "create", "-n", "binary", "--secret-file", "hf_secret")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (("online-deployment", "delete", "-n", "nobody", "-e", "none", "--yes"), "no endpoint 'none'"),
        (("online-endpoint", "delete", "-n", "none", "--yes"), "there is no endpoint 'none'"),
        (("connection", "delete", "-n", "none", "--yes"), "there is no connection 'none'"),
    ],
)
def test_what_cannot_be_deleted_because_it_is_not_there_is_named(
    run: Run, command: tuple[str, ...], missing: str
) -> None:
    assert missing in run(*command)


def test_secrets_survive_the_rotation_of_the_encryption_key(run: Run) -> None:
    run("connection", "create", "-n", "rotated", "--secret", "KEY=s3cret")

    assert json.loads(run("connection", "rotate-encryption-key"))["reencrypted"] >= 1

    assert "s3cret" in run("connection", "show", "-n", "rotated", "--populate-secrets")


@pytest.mark.parametrize(
    "text",
    [
        "{name: in-yaml, type: custom, secrets: {HF_TOKEN: s3cret}}",
        "{name: in-yaml, type: custom, credentials: {type: custom_keys, keys: {HF_TOKEN: s3cret}}}",
        "{name: in-yaml, type: generic, target: _, credentials: {type: custom_keys, keys: {HF_TOKEN: s3cret}}}",
    ],
)
def test_every_written_form_of_a_connection_is_the_same(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "connection.yml").write_text(text)

    run("connection", "create", "-f", "connection.yml")

    shown = json.loads(run("connection", "show", "-n", "in-yaml", "--populate-secrets"))
    assert shown["credentials"] == {"keys": {"HF_TOKEN": "s3cret"}}


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("online-endpoint", "{name: flux, auth_mod: key}", "'auth_mod' in resource.yml (did you mean 'auth_mode'?)"),
        ("online-deployment", "{name: blue, model: m, gpu: 1}", "unknown field 'gpu'"),
        (
            "online-deployment",
            "{name: b, endpoint_name: e, request_settings: {timeout: 1}}",
            "request_settings.timeout",
        ),
        ("connection", "{name: hub, type: git}", "'git' is not supported"),
    ],
)
def test_an_unknown_field_is_refused_by_name(run: Run, tmp_path: Path, command: str, text: str, message: str) -> None:
    (tmp_path / "resource.yml").write_text(text)

    assert message in run(command, "create", "-f", "resource.yml")


def test_without_a_server_the_command_says_how_to_start_one(run: Run, tmp_path: Path) -> None:
    assert "safelight serve" in run("connection", "list", "--data-dir", str(tmp_path / "nowhere"))
