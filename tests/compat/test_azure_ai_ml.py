"""The real `azure-ai-ml` SDK, unmodified, against a Safelight server over HTTPS: the order of the model card."""

from __future__ import annotations

import base64
import io
import json
import os
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from PIL import Image

from safelight.azure import AdminCredential, cloud
from tests.checkpoint_files import write_checkpoint
from tests.e2e.online_client import OnlineClient, register_tiny_model
from tests.fake_hub import GOOD_TOKEN, FakeHub, fake_hub
from tests.online_server import OnlineServer, online_server

pytestmark = pytest.mark.filterwarnings("ignore")

MODEL = "black-forest-labs-flux.1-schnell"
MODEL_URI = f"azureml://registries/HuggingFace/models/{MODEL}/labels/latest"
ENFORCE = {"enforce_access_to_default_secret_stores": "enabled"}
CONNECTION = "HuggingFaceTokenConnection"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    """A hub with a gated FLUX.1-schnell whose files are only what a model needs to be known."""
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "model")
    with fake_hub(folder, repo_id="black-forest-labs/FLUX.1-schnell") as hub:
        yield hub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[OnlineServer]:
    with online_server(tmp_path_factory.mktemp("online"), {"HF_ENDPOINT": hub.endpoint}) as server:
        yield server


@pytest.fixture(scope="module")
def arguments(server: OnlineServer) -> Iterator[dict[str, Any]]:
    """What points MLClient at the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        patch.setenv("AZURE_ML_CLI_PRIVATE_FEATURES_ENABLED", "false")
        yield cloud(server.url)


@pytest.fixture(scope="module")
def client(server: OnlineServer, arguments: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.ai.ml import MLClient  # noqa: PLC0415  slow, and it warns

        return MLClient(AdminCredential(data_dir=server.data_dir), "sub", "group", "workspace", **arguments)


def create_connection(client: Any, credentials: dict[str, Any]) -> None:
    """Custom keys have no public class in the SDK; its own REST models carry them."""
    from azure.ai.ml._restclient.arm_ml_service import models  # noqa: PLC0415

    client.connections._operation.create(
        resource_group_name="group",
        workspace_name="workspace",
        connection_name=CONNECTION,
        body=models.WorkspaceConnectionPropertiesV2BasicResource(
            properties=models.CustomKeysWorkspaceConnectionProperties(
                category="CustomKeys", target="_", credentials=models.CustomKeys({"keys": credentials})
            )
        ),
    )


def test_the_workspace_is_there(client: Any) -> None:
    workspace = client.workspaces.get("workspace")

    assert (workspace.name, workspace.location) == ("workspace", "local")


def test_a_connection_is_created_listed_and_deleted_without_showing_its_secret(client: Any) -> None:
    from azure.ai.ml.entities import ApiKeyConfiguration, WorkspaceConnection  # noqa: PLC0415

    client.connections.create_or_update(
        WorkspaceConnection(name="other", type="custom", target="_", credentials=ApiKeyConfiguration(key="hf_secret"))
    )
    shown = client.connections.get("other")
    listed = [each.name for each in client.connections.list()]
    client.connections.delete("other")

    assert "hf_secret" not in str(shown)
    assert "other" in listed
    assert "other" not in [each.name for each in client.connections.list()]


def test_a_patch_by_the_sdks_rest_client_changes_one_secret_and_keeps_the_other(
    client: Any, server: OnlineServer
) -> None:
    from azure.ai.ml._restclient.arm_ml_service import models  # noqa: PLC0415

    create_connection(client, {"HF_TOKEN": "hf_old", "OTHER": "kept"})
    client.connections._operation.update(
        resource_group_name="group",
        workspace_name="workspace",
        connection_name=CONNECTION,
        body=models.WorkspaceConnectionUpdateParameter(
            properties=models.CustomKeysWorkspaceConnectionProperties(
                category="CustomKeys", credentials=models.CustomKeys({"keys": {"HF_TOKEN": "hf_new"}})
            )
        ),
    )
    secrets = client.connections._operation.list_secrets(
        resource_group_name="group", workspace_name="workspace", connection_name=CONNECTION
    )
    client.connections.delete(CONNECTION)

    assert secrets.properties.credentials.as_dict()["keys"] == {"HF_TOKEN": "hf_new", "OTHER": "kept"}


def test_the_servers_own_certificate_can_be_named_instead_of_set_in_the_environment(
    server: OnlineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.ai.ml import MLClient  # noqa: PLC0415

    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    arguments: dict[str, Any] = cloud(server.url, certificate=server.certificate)
    client = MLClient(AdminCredential(server.admin_token), "sub", "group", "workspace", **arguments)

    assert client.workspaces.get("workspace").name == "workspace"
    assert list(client.online_endpoints.list()) == []


def test_a_registry_model_is_found_by_version_and_by_label(server: OnlineServer, arguments: dict[str, Any]) -> None:
    from azure.ai.ml import MLClient  # noqa: PLC0415

    registry = MLClient(AdminCredential(data_dir=server.data_dir), registry_name="HuggingFace", **arguments)

    by_version = registry.models.get(MODEL, version="1")
    by_label = registry.models.get(MODEL, label="latest")

    assert (by_version.name, by_version.version) == (MODEL, "1")
    assert by_label.id == by_version.id == f"azureml://registries/HuggingFace/models/{MODEL}/versions/1"
    assert MODEL in [model.name for model in registry.models.list()]


def test_the_order_of_the_model_card_ends_in_a_picture(client: Any, hub: FakeHub, tmp_path: Path) -> None:
    from azure.ai.ml import load_online_deployment, load_online_endpoint  # noqa: PLC0415
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415

    endpoint = load_online_endpoint(_yaml(tmp_path, {"name": "flux", "auth_mode": "key", "properties": ENFORCE}))
    client.online_endpoints.begin_create_or_update(endpoint).result()
    deployment_yaml = {
        "name": "blue",
        "endpoint_name": "flux",
        "model": MODEL_URI,
        "instance_type": "Standard_NC40ads_H100_v5",
        "instance_count": 1,
        "request_settings": {"max_queue_wait_ms": 30_000},
        "liveness_probe": {"initial_delay": 600},
    }
    deployment = load_online_deployment(_yaml(tmp_path, deployment_yaml))

    with pytest.raises(HttpResponseError, match="SecretsInjectionError") as caught:
        client.online_deployments.begin_create_or_update(deployment).result()
    assert "safelight connection create" in str(caught.value)

    create_connection(client, {"HF_TOKEN": "hf_wrong"})
    with pytest.raises(HttpResponseError, match="does not accept the token"):
        client.online_deployments.begin_create_or_update(deployment).result()

    create_connection(client, {"HF_TOKEN": GOOD_TOKEN})
    client.online_deployments.begin_create_or_update(deployment).result()
    assert client.online_deployments.get("blue", "flux").provisioning_state == "Succeeded"
    assert [each.name for each in client.online_deployments.list("flux")] == ["blue"]
    logs = client.online_deployments.get_logs("blue", "flux", 50)
    assert "ready" in logs
    assert "warning: instance_type Standard_NC40ads_H100_v5 has no effect on your own machine" in logs
    assert client.online_deployments.get("blue", "flux").request_settings.max_queue_wait_ms == 30_000

    picture = _invoke(client, tmp_path, deployment_name="blue")
    assert picture.format == "PNG"

    shown = client.online_endpoints.get("flux")
    shown.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(shown).result()
    assert client.online_endpoints.get("flux").traffic == {"blue": 100}
    _invoke(client, tmp_path)

    _regenerate(client)
    _draw_with_openai(client)
    _delete(client)


def test_a_model_of_the_workspace_is_deployed_by_its_short_name(
    client: Any, server: OnlineServer, hub: FakeHub
) -> None:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint  # noqa: PLC0415

    with OnlineClient(server) as admin:
        register_tiny_model(admin, hub.folder)
    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="own", auth_mode="aml_token")).result()
    deployment = ManagedOnlineDeployment(name="blue", endpoint_name="own", model="azureml:tiny:1", instance_count=1)

    client.online_deployments.begin_create_or_update(deployment).result()

    assert client.online_deployments.get("blue", "own").provisioning_state == "Succeeded"
    assert client.online_deployments.get("blue", "own").liveness_probe is None
    assert client.online_endpoints.get_keys("own").access_token
    client.online_endpoints.begin_delete("own").result()


@pytest.fixture(scope="module")
def versions(client: Any, server: OnlineServer, hub: FakeHub) -> list[str]:
    """Of the workspace's model `several`, newest first."""
    versions = ["1", "10", "2"]
    with OnlineClient(server) as admin:
        for version in versions:
            body = {"properties": {"modelUri": str(hub.folder)}}
            assert admin.arm("PUT", f"/models/several/versions/{version}", body).is_success
    return versions[::-1]


def test_a_workspaces_model_has_versions_and_a_latest_one(client: Any, versions: list[str]) -> None:
    from azure.ai.ml.constants import ListViewType  # noqa: PLC0415

    latest = client.models.get("several", label="latest")
    listed = [(model.name, model.latest_version) for model in client.models.list()]

    assert (latest.name, latest.version) == ("several", versions[0])
    assert client.models.get("several", version="10").version == "10"
    assert [model.version for model in client.models.list(name="several")] == versions
    assert listed.count(("several", versions[0])) == 1
    assert list(client.models.list(name="several", list_view_type=ListViewType.ARCHIVED_ONLY)) == []
    assert list(client.models.list(list_view_type=ListViewType.ARCHIVED_ONLY)) == []


def test_what_the_sdk_asks_about_models_and_is_not_here_is_refused_by_name(client: Any, versions: list[str]) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError  # noqa: PLC0415

    with pytest.raises(ResourceNotFoundError, match="no model 'nothing'; see `safelight model list`"):
        client.models.get("nothing", label="latest")
    with pytest.raises(HttpResponseError, match="versions are not listed by stage"):
        list(client.models.list(name="several", stage="Production"))
    with pytest.raises(HttpResponseError, match="versions never change"):
        client.models.archive("several", versions[0])


@pytest.mark.parametrize("model", ["azureml:several@latest", "azureml:several:10", "azureml:sprite@latest"])
def test_a_deployment_names_its_model_by_label_or_by_version(client: Any, versions: list[str], model: str) -> None:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint  # noqa: PLC0415

    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="label")).result()
    deployment = ManagedOnlineDeployment(name="blue", endpoint_name="label", model=model, instance_count=1)

    client.online_deployments.begin_create_or_update(deployment).result()

    shown = client.online_deployments.get("blue", "label")
    assert shown.provisioning_state == "Succeeded"
    version = {"azureml:several@latest": versions[0], "azureml:several:10": "10"}.get(model, "1")
    assert shown.model.endswith(f"/versions/{version}")
    client.online_endpoints.begin_delete("label").result()


def test_deployment_templates_are_refused_by_name(client: Any, server: OnlineServer, arguments: dict[str, Any]) -> None:
    from azure.ai.ml import MLClient  # noqa: PLC0415
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, Model  # noqa: PLC0415
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415

    template = "azureml://registries/own/deploymenttemplates/small/versions/1"
    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="template")).result()
    deployment = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="template",
        model="azureml:sprite:1",
        instance_count=1,
        properties={"azureml.deploymentTemplateOverride": template},
    )
    registry = MLClient(AdminCredential(data_dir=server.data_dir), registry_name="Safelight", **arguments)
    model = Model(
        name="sprite", version="3", path=str(Path(__file__).parent), default_deployment_template={"asset_id": template}
    )

    with pytest.raises(HttpResponseError, match="deployment templates are not read here"):
        client.online_deployments.begin_create_or_update(deployment).result()
    with pytest.raises(
        HttpResponseError, match="only read here, and keeps no models, environments or deployment templates"
    ):
        registry.models.create_or_update(model)
    client.online_endpoints.begin_delete("template").result()


def _regenerate(client: Any) -> None:
    before = client.online_endpoints.get_keys("flux")
    client.online_endpoints.begin_regenerate_keys("flux", key_type="secondary").result()
    after = client.online_endpoints.get_keys("flux")

    assert after.primary_key == before.primary_key
    assert after.secondary_key != before.secondary_key


def _draw_with_openai(client: Any) -> None:
    """The official client keeps scheme and host of the scoring URI only: the key names the endpoint."""
    parts = urlsplit(client.online_endpoints.get("flux").scoring_uri)
    keys = client.online_endpoints.get_keys("flux")
    context = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
    with openai.OpenAI(
        base_url=f"{parts.scheme}://{parts.netloc}/v1",
        api_key=keys.secondary_key,
        default_headers={"azureml-model-deployment": "blue"},
        http_client=openai.DefaultHttpxClient(verify=context),
    ) as images:
        answer = images.images.generate(prompt="Astronaut", size="256x256")

    assert answer.data is not None
    content = base64.b64decode(answer.data[0].b64_json or "")
    assert Image.open(io.BytesIO(content)).size == (256, 256)


def _delete(client: Any) -> None:
    shown = client.online_endpoints.get("flux")
    shown.traffic = {}
    client.online_endpoints.begin_create_or_update(shown).result()
    client.online_deployments.begin_delete("blue", "flux").result()
    assert list(client.online_deployments.list("flux")) == []
    client.online_endpoints.begin_delete("flux").result()
    assert [each.name for each in client.online_endpoints.list()] == []


def _invoke(client: Any, tmp_path: Path, **options: Any) -> Image.Image:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"inputs": "Astronaut", "parameters": {"width": 64, "height": 64, "seed": 7}}))
    answer = client.online_endpoints.invoke("flux", request_file=str(request), **options)
    return Image.open(io.BytesIO(base64.b64decode(json.loads(answer))))


def _yaml(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "resource.yml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return str(path)
