"""OpenAI's and Azure's clients, unmodified, on an endpoint with two deployments."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.e2e.online_client import OnlineClient, register_tiny_model
from tests.online_server import OnlineServer, online_server
from tests.unit.picture.incoming.test_uploads import encoded, left_red

DEPLOYMENT = "azureml-model-deployment"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineServer]:
    with online_server(tmp_path_factory.mktemp("online")) as server:
        yield server


@pytest.fixture(scope="module")
def online(server: OnlineServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineClient]:
    """`flux` with `blue`, which takes all traffic and is called dall-e-3 as well, and `green`."""
    with OnlineClient(server) as client:
        register_tiny_model(client, tmp_path_factory.mktemp("model"))
        client.create_endpoint()
        aliases = {"SAFELIGHT_MODEL_ALIASES": "dall-e-3=blue,gpt-image-1=tiny"}
        assert client.deploy("blue", environmentVariables=aliases)["status"] == "Succeeded"
        assert client.deploy("green")["status"] == "Succeeded"
        client.create_endpoint(traffic={"blue": 100})
        yield client


@pytest.fixture
def trusting(server: OnlineServer) -> Iterator[httpx2.Client]:
    context = ssl.create_default_context(cafile=str(server.certificate))
    with httpx2.Client(verify=context, trust_env=False) as client:
        yield client


@pytest.fixture
def client(server: OnlineServer, online: OnlineClient, trusting: httpx2.Client) -> openai.OpenAI:
    url = f"{server.url}/endpoints/flux/openai/v1/"
    return openai.OpenAI(base_url=url, api_key=online.key(), max_retries=0, http_client=trusting)


@pytest.fixture
def azure(server: OnlineServer, online: OnlineClient, trusting: httpx2.Client) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=server.url,
        api_key=online.key(),
        api_version="2025-04-01-preview",
        max_retries=0,
        http_client=trusting,
    )


@pytest.mark.parametrize(
    ("model", "by"), [("green", "green"), ("blue", "blue"), ("tiny", "blue"), ("dall-e-3", "blue")]
)
def test_azures_client_names_a_deployment_as_its_model(azure: openai.AzureOpenAI, model: str, by: str) -> None:
    made = azure.images.with_raw_response.generate(prompt="a fox", model=model, size="64x64")
    edited = azure.images.with_raw_response.edit(prompt="a fox", model=model, image=io.BytesIO(encoded(left_red())))

    assert (made.headers[DEPLOYMENT], edited.headers[DEPLOYMENT]) == (by, by)
    assert made.parse().data


@pytest.mark.parametrize(
    ("model", "by"), [("green", "green"), ("blue", "blue"), ("tiny", "blue"), ("dall-e-3", "blue")]
)
def test_openais_client_names_a_deployment_as_its_model(client: openai.OpenAI, model: str, by: str) -> None:
    image = io.BytesIO(encoded(left_red()))

    made = client.images.with_raw_response.generate(prompt="a fox", model=model)
    edited = client.images.with_raw_response.edit(prompt="a fox", model=model, image=image)
    with client.images.with_streaming_response.generate(prompt="a fox", model=model, stream=True) as streamed:
        streamed.read()

    assert [each.headers[DEPLOYMENT] for each in (made, edited, streamed)] == [by] * 3


def test_an_alias_of_a_deployment_has_its_own_default(client: openai.OpenAI) -> None:
    by_alias = client.images.generate(prompt="a fox", model="dall-e-3")
    by_other = client.images.generate(prompt="a fox", model="gpt-image-1")

    assert by_alias.data is not None
    assert by_other.data is not None
    assert by_alias.data[0].url
    assert by_other.data[0].b64_json


def test_an_alias_is_the_deployments_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"does not exist here; this server has: green, .*tiny"):
        client.images.generate(prompt="a fox", model="dall-e-3", extra_headers={DEPLOYMENT: "green"})


def test_a_name_that_contradicts_the_header_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`green` does not exist here"):
        client.images.generate(prompt="a fox", model="green", extra_headers={DEPLOYMENT: "blue"})


def test_the_list_of_models_has_deployments_and_their_models(client: openai.OpenAI, azure: openai.AzureOpenAI) -> None:
    names = ["blue", "green", "tiny", "dall-e-3", "gpt-image-1"]

    assert [each.id for each in client.models.list()] == names
    assert [each.id for each in azure.models.list()] == names
    assert client.models.retrieve("green").id == azure.models.retrieve("green").id == "green"


def test_a_base_url_without_v1_is_told_the_whole_address(
    server: OnlineServer, online: OnlineClient, trusting: httpx2.Client
) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/endpoints/flux", api_key=online.key(), http_client=trusting)

    with pytest.raises(openai.NotFoundError, match="use /endpoints/flux/v1/images/generations"):
        client.images.generate(prompt="a fox")


def test_a_job_remembers_the_deployment_that_it_named(online: OnlineClient) -> None:
    answers = [
        online.draw(
            online.key(),
            "/endpoints/flux/v1/images/generations",
            {"prompt": "a", "model": "green"},
            Idempotency_Key="k",
        )
        for _ in range(2)
    ]

    assert [each.headers[DEPLOYMENT] for each in answers] == ["green", "green"]
    assert answers[0].content == answers[1].content


def test_an_alias_for_something_else_fails_the_deployment_and_says_why(online: OnlineClient) -> None:
    outcome = online.deploy("pink", environmentVariables={"SAFELIGHT_MODEL_ALIASES": "dall-e-3=other"})

    assert outcome["status"] == "Failed"
    assert "model alias 1 of 1 is of a model that is not here; there is pink, tiny" in json.dumps(outcome)


def test_aliases_are_no_variable_without_effect(online: OnlineClient) -> None:
    shown = online.arm("GET", "/onlineEndpoints/flux/deployments/blue").text

    assert "without effect" not in shown
