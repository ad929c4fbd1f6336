"""`response_format: url`: links in place of pictures, open to whoever has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.unit.picture.incoming.test_uploads import encoded, left_red

BODY = {"prompt": "a fox", "seed": 7, "response_format": "url"}


def test_a_link_leads_to_the_picture_without_a_key(connect: Callable[..., TestClient], tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path, api_key="k")
    headers = {"Authorization": "Bearer k"}
    [image] = client.post("/v1/images/generations", json=BODY, headers=headers).json()["data"]

    response = client.get(image["url"])

    assert set(image) == {"url", "seed"}
    assert image["url"].startswith("http://testserver/v1/images/files/")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert response.content.startswith(b"\x89PNG")
    assert client.get("/v1/images/files").status_code == 401


@pytest.mark.parametrize("path", ["/v1/images/files/x", "/v1/images/files/x?signature=y", "/v1/images/files/..%2Fkey"])
def test_a_wrong_link_is_not_found_in_the_dialects_words(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_links_begin_with_the_servers_public_address(connect: Callable[..., TestClient], tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path, public_url="https://images.example.org/")

    answer = client.post("/v1/images/generations", json=BODY).json()

    assert answer["data"][0]["url"].startswith("https://images.example.org/v1/images/files/")


def test_edits_have_links_too(connect: Callable[..., TestClient], tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path)
    form = {"prompt": "a fox", "response_format": "url", "output_format": "webp"}

    answer = client.post("/v1/images/edits", data=form, files={"image": encoded(left_red())}).json()

    assert client.get(answer["data"][0]["url"]).headers["content-type"] == "image/webp"


def test_a_picture_that_cannot_be_kept_is_an_error_with_the_remedy(
    connect: Callable[..., TestClient], tmp_path: Path
) -> None:
    (tmp_path / "images").write_text("no folder")
    client = connect(data_dir=tmp_path)

    response = client.post("/v1/images/generations", json=BODY)

    assert response.status_code == 500
    assert "response_format 'b64_json'" in response.json()["error"]["message"]


def test_who_has_the_picture_behind_a_link_is_not_sent_it_again(
    connect: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = connect(data_dir=tmp_path)
    first, second = (client.post("/v1/images/generations", json=BODY).json()["data"][0]["url"] for _ in range(2))
    etag = client.get(first).headers["etag"]

    again = client.get(first, headers={"If-None-Match": f'"other", W/{etag}'})
    other = client.get(second, headers={"If-None-Match": etag})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (other.status_code, other.content[:4]) == (200, b"\x89PNG")
    assert client.get(f"{first}0", headers={"If-None-Match": etag}).status_code == 404  # a wrong signature has nothing
