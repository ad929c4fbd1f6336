"""Pictures behind links, kept where many servers find them: S3's protocol, against a real server of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from starlette.testclient import TestClient

from safelight.errors import ImageNotKept, NotReady, ResourceNotFound
from safelight.picture.links import LIFETIME_S, ImageStore
from tests.s3_server import s3_server
from tests.unit.picture.test_links import Clock, keep

URL = "s3://pictures/made/here"
BODY = {"prompt": "a fox", "seed": 7, "n": 2, "response_format": "url"}


@pytest.fixture
def server() -> Iterator[ThreadedMotoServer]:
    with s3_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(server: ThreadedMotoServer, tmp_path: Path, clock: Clock) -> ImageStore:
    return ImageStore(URL, tmp_path / "key", clock=clock)


def objects() -> list[str]:
    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    return [path.removeprefix("pictures/made/here/") for path in files.find("pictures")]


def test_links_lead_to_pictures_in_the_bucket(
    server: ThreadedMotoServer, connect: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = connect(data_dir=tmp_path, image_store_url=URL)
    whole = client.post("/v1/images/generations", json=BODY | {"response_format": "b64_json"}).json()

    links = [image["url"] for image in client.post("/v1/images/generations", json=BODY).json()["data"]]

    names = [link.partition("?")[0].rpartition("/")[2] for link in links]
    assert sorted(names) == objects()
    pictures = [client.get(link) for link in links]
    assert [each.headers["content-type"] for each in pictures] == ["image/png"] * 2
    assert [each.content for each in pictures] == [base64.b64decode(image["b64_json"]) for image in whole["data"]]
    assert client.get(links[0] + "0").status_code == 404
    assert not (tmp_path / "images").exists()


def test_a_link_ends_after_an_hour_and_its_object_is_removed(store: ImageStore, clock: Clock) -> None:
    link = keep(store)
    s3fs.S3FileSystem().pipe_file(f"pictures/made/here/.{link[0]}.partial", b"half")
    s3fs.S3FileSystem().pipe_file("pictures/made/here/mine.png", b"")
    assert store.read(*link) == (b"picture", "png")
    clock.now += LIFETIME_S
    new = keep(store)

    with pytest.raises(ResourceNotFound, match="60 minutes"):
        store.read(*link)
    assert store.clean_up() == 2
    assert objects() == [new[0], "mine.png"]


def test_a_picture_that_somebody_removed_is_not_there(store: ImageStore) -> None:
    link = keep(store)
    s3fs.S3FileSystem(skip_instance_cache=True).rm_file(f"pictures/made/here/{link[0]}")

    with pytest.raises(ResourceNotFound):
        store.read(*link)


def test_a_store_that_does_not_answer_is_an_error_with_the_remedy(
    server: ThreadedMotoServer, store: ImageStore
) -> None:
    link = keep(store)
    server.stop()

    with pytest.raises(ImageNotKept, match=r"EndpointConnectionError.*b64_json"):
        keep(store)
    with pytest.raises(NotReady, match="does not answer"):
        store.read(*link)
    with pytest.raises(OSError, match="EndpointConnectionError"):
        store.clean_up()


def test_nothing_is_there_to_clean_up_before_the_first_picture(store: ImageStore) -> None:
    assert store.clean_up() == 0
