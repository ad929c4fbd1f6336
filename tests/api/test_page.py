"""The page as HTTP sees it: who is led to it, what its files say of themselves, and that they need no key."""

from __future__ import annotations

import gzip
import re

import pytest
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def asset(client: TestClient, ending: str) -> str:
    """The path of one of the built files."""
    found = re.search(rf'"\./(assets/[^"]+\.{ending})"', client.get("/app/").text)
    assert found is not None
    return f"/app/{found[1]}"


def test_a_browser_is_led_to_the_page(client: TestClient) -> None:
    answer = client.get("/", headers={"accept": BROWSER}, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (307, "app/")
    assert "accept" in answer.headers["vary"]
    assert client.get("/", headers={"accept": BROWSER}).text.startswith("<!doctype html>")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", "image/png", "text/plain, text/html", ","])
def test_who_asks_for_no_page_gets_the_word_of_the_health_check(client: TestClient, accept: str) -> None:
    answer = client.get("/", headers={"accept": accept})

    assert (answer.status_code, answer.text) == (200, "Ok")
    assert client.get("/health", headers={"accept": BROWSER}).text == "Ok"


def test_the_page_allows_no_script_style_frame_or_host_but_its_own(client: TestClient) -> None:
    for path in ("/app/", asset(client, "js"), asset(client, "css"), asset(client, "svg")):
        headers = client.get(path).headers
        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    page = client.get("/app/").text
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?://", page)


def test_a_browser_asks_for_each_file_once(client: TestClient) -> None:
    script = client.get(asset(client, "js"))
    page = client.get("/app/")

    assert "immutable" in script.headers["cache-control"]
    assert page.headers["cache-control"] == "no-cache"
    for each, path in ((script, asset(client, "js")), (page, "/app/")):
        again = client.get(path, headers={"if-none-match": f'"other", W/{each.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-security-policy" in again.headers


def test_files_are_sent_as_gzip_to_whoever_takes_it(client: TestClient) -> None:
    path = asset(client, "js")
    with client.stream("GET", path, headers={"accept-encoding": "br, gzip"}) as answer:
        zipped = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) == len(zipped)
    plain = client.get(path, headers={"accept-encoding": "gzip;q=0"})

    assert "content-encoding" not in plain.headers
    assert gzip.decompress(zipped) == plain.content
    assert plain.headers["content-type"].startswith("text/javascript")
    assert client.head(path).headers["content-length"] == str(len(zipped))


def test_the_page_needs_no_key_and_the_model_behind_it_does() -> None:
    with TestClient(create_app(Settings(api_key="key"), FakeDispatcher())) as locked:  # type: ignore[arg-type]
        assert locked.get("/app/").status_code == locked.get(asset(locked, "js")).status_code == 200
        assert locked.get("/app/model.json").status_code == 401
        assert locked.get("/app/assets/../model.json").status_code == 401
        assert locked.post("/app/").status_code == 401
        assert locked.get("/app/model.json", headers={"authorization": "Bearer key"}).json()["name"]


@pytest.mark.parametrize(
    "path", ["/app/assets/", "/app/assets/no.js", "/app/index.html", "/app/assets/..%2f..%2fpage.py", "/app/assets/%00"]
)
def test_nothing_but_the_built_files_is_sent(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_is_told_each_parameter_with_its_range(client: TestClient, dispatcher: FakeDispatcher) -> None:
    model = client.get("/app/model.json").json()

    parameters = {each["name"]: each for each in model["parameters"]}
    assert parameters["width"]["maximum"] == dispatcher.spec.max_size
    assert parameters["num_inference_steps"]["maximum"] == dispatcher.spec.max_num_inference_steps
    assert model["max_pixels"] == dispatcher.spec.max_pixels
    assert model["qualities"]["medium"] == dispatcher.spec.default_num_inference_steps


@pytest.mark.parametrize("host", ["flux.localhost", "nobody.localhost"])
def test_a_browser_at_the_host_of_an_endpoint_is_led_to_the_page(stranger: TestClient, host: str) -> None:
    """Whether or not there is such an endpoint, which is not told to who has no key."""
    address = f"http://{host}:8000"

    answer = stranger.get(f"{address}/", headers={"accept": BROWSER}, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (307, "app/")
    page = stranger.get(f"{address}/app/")
    assert page.text == stranger.get("/app/").text
    assert stranger.get(f"{address}{asset(stranger, 'js')}").status_code == 200
    assert stranger.get(f"{address}/app/model.json").status_code == 401


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/endpoints/flux", "flux/app/"),
        ("/endpoints/flux/", "app/"),
        ("/endpoints/flux/app", "app/"),
        ("/endpoints/http:", "http%3A/app/"),
    ],
)
def test_a_browser_at_the_path_of_an_endpoint_is_led_to_the_page_under_it(
    stranger: TestClient, path: str, to: str
) -> None:
    answer = stranger.get(path, headers={"accept": BROWSER}, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (307, to)
    there = stranger.get(path, headers={"accept": BROWSER})
    assert there.text.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [("GET", "/", "*/*"), ("POST", "/", BROWSER), ("GET", "/app/model.json", BROWSER), ("GET", "/health", BROWSER)],
)
def test_clients_of_an_endpoint_are_asked_for_its_key_as_before(
    stranger: TestClient, method: str, path: str, accept: str
) -> None:
    answer = stranger.request(method, f"http://flux.localhost:8000{path}", headers={"accept": accept})

    assert answer.status_code == 401
