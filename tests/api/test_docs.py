"""The OpenAPI document and its page."""

from __future__ import annotations

import re
from collections.abc import Callable

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from safelight.api.huggingface.wire import Parameters
from safelight.api.openai.routes import ImageGenerationBody

GENERATIONS = {
    "/": Parameters,
    "/predict": Parameters,
    "/score": Parameters,
    "/v1/images/generations": ImageGenerationBody,
    "/openai/deployments/{deployment}/images/generations": ImageGenerationBody,
}


@pytest.mark.parametrize("path", GENERATIONS)
def test_every_generation_route_documents_its_fields_examples_and_errors(client: TestClient, path: str) -> None:
    operation = client.get("/openapi.json").json()["paths"][path]["post"]

    content = operation["requestBody"]["content"]["application/json"]
    properties = content["schema"]["properties"]
    fields = properties["parameters"]["anyOf"][0]["properties"] if "parameters" in properties else properties
    assert set(GENERATIONS[path].model_fields) == set(fields)
    assert all("description" in field for field in fields.values())
    assert len(content["examples"]) >= 2
    assert operation["summary"]
    assert {"200", "400", "401", "406", "408", "413", "415", "429", "500", "503"} <= set(operation["responses"])


@pytest.mark.parametrize("path", ["/", "/score", "/v1/images/generations"])
def test_every_example_is_a_request_that_works(client: TestClient, path: str) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]

    for example in content["examples"].values():
        jsonschema_rs.validate(content["schema"], example["value"])
        assert client.post(path, json=example["value"]).status_code == 200


def test_every_other_route_is_there_too(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    assert {"/v1/models", "/v1/models/{id}", "/health/live", "/health/ready", "/metrics"} <= set(paths)


def test_the_document_says_how_to_send_the_key(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert document["paths"]["/score"]["post"]["security"] == [{"key": []}]


def test_the_page_is_there(client: TestClient) -> None:
    response = client.get("/docs")

    assert response.status_code == 200
    assert "swagger" in response.text


def test_the_docs_page_loads_nothing_from_another_host(client: TestClient) -> None:
    page = client.get("/docs").text

    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 3
    assert all(link.startswith("/") for link in links), links
    assert all(client.get(link).status_code == 200 for link in links)


def test_the_docs_page_works_without_a_key_where_one_is_set(connect: Callable[..., TestClient]) -> None:
    client = connect(api_key="k")

    assert client.get("/docs").status_code == 200
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    assert client.get("/metrics").status_code == 401


def test_the_document_is_rendered_once_for_all_who_ask(connect: Callable[..., TestClient]) -> None:
    """Nobody needs a key for it, and it is long: rendering it for each of thousands would keep others waiting."""
    client = connect()
    first = client.get("/openapi.json")

    client.app.openapi_schema["info"]["title"] = "rendered again"  # type: ignore[attr-defined]

    assert client.get("/openapi.json").content == first.content
    assert first.json()["info"]["title"] == "Safelight"
