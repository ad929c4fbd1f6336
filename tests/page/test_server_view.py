"""The administrator's view: endpoints, traffic and keys, changed where the command line would change them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.fakes import DEADLINE_S, Gate
from tests.online_server import OnlineServer, online_server
from tests.page.actions import make
from tests.page.actions import sign_in as sign_in_with_key
from tests.waiting import eventually

OpenPage = Callable[..., Page]
WORKSPACE = "/subscriptions/local/resourceGroups/local/providers/Microsoft.MachineLearningServices/workspaces/local"
ENDPOINT = "/onlineEndpoints/pictures"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineServer]:
    """With an endpoint of two deployments, and a connection."""
    with online_server(tmp_path_factory.mktemp("page") / "data") as server:
        arm(server, "PUT", "/connections/hub", {"properties": CONNECTION})
        arm(server, "PUT", ENDPOINT, {"properties": {}})
        settle(server, ENDPOINT)
        for name in ("blue", "green"):
            arm(server, "PUT", f"{ENDPOINT}/deployments/{name}", {"properties": {"model": "sprite"}})
            settle(server, f"{ENDPOINT}/deployments/{name}")
        arm(server, "PATCH", ENDPOINT, {"properties": {"traffic": {"blue": 100}}})
        settle(server, ENDPOINT)
        yield server


CONNECTION = {
    "category": "CustomKeys",
    "authType": "CustomKeys",
    "target": "-",
    "credentials": {"keys": {"HF_TOKEN": "hf_secret"}},
}


def arm(server: OnlineServer, method: str, path: str, body: object = None) -> dict[str, object]:
    answer = httpx.request(
        method,
        f"{server.url}{WORKSPACE}{path}?api-version=2024-10-01",
        json=body,
        headers={"authorization": f"Bearer {server.admin_token}"},
        verify=False,
        timeout=60,
    )
    assert answer.is_success, answer.text
    return answer.json()


def properties(server: OnlineServer, path: str) -> dict[str, object]:
    return arm(server, "GET", path)["properties"]  # type: ignore[return-value]


def settle(server: OnlineServer, path: str) -> None:
    eventually(lambda: properties(server, path)["provisioningState"] == "Succeeded")


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Administrator's token").fill(token)
    page.get_by_role("button", name="Open", exact=True).click()


@pytest.fixture
def page(server: OnlineServer, open_page: OpenPage) -> Page:
    page = open_page(f"{server.url}/app/#server")
    sign_in(page, server.admin_token)
    page.get_by_role("heading", name="pictures").wait_for()
    return page


def test_a_wrong_token_opens_nothing(server: OnlineServer, open_page: OpenPage) -> None:
    page = open_page(f"{server.url}/app/#server")

    sign_in(page, "wrong")

    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("heading", name="pictures")).not_to_be_visible()


def test_traffic_is_moved_with_a_slider(server: OnlineServer, page: Page) -> None:
    page.get_by_label("green, %", exact=True).fill("30")
    page.get_by_role("button", name="Move the traffic").click()

    eventually(lambda: properties(server, ENDPOINT)["traffic"] == {"blue": 70, "green": 30})
    expect(page.get_by_role("button", name="Move the traffic")).to_be_disabled()


def test_a_key_is_shown_when_asked_for_and_rotated(server: OnlineServer, page: Page) -> None:
    before = arm(server, "POST", f"{ENDPOINT}/listKeys")
    assert str(before["primaryKey"]) not in page.content()

    page.get_by_role("button", name="Show the keys").click()
    expect(page.get_by_text(str(before["primaryKey"]))).to_be_visible()
    page.get_by_role("button", name="Rotate").first.click()
    page.get_by_role("button", name="Rotate: clients with it are locked out").click()

    eventually(lambda: arm(server, "POST", f"{ENDPOINT}/listKeys")["primaryKey"] != before["primaryKey"])
    after = arm(server, "POST", f"{ENDPOINT}/listKeys")
    expect(page.get_by_text(str(after["primaryKey"]))).to_be_visible()
    assert after["secondaryKey"] == before["secondaryKey"]


def test_logs_and_connections_are_there_without_secrets(page: Page) -> None:
    page.get_by_text("Logs").first.click()

    expect(page.locator(".logs")).to_contain_text("starting 1 replica")
    expect(page.get_by_role("listitem").filter(has_text="hub")).to_be_visible()
    assert "hf_secret" not in page.content()


def test_the_replicas_of_a_deployment_say_what_they_do(server: OnlineServer, page: Page) -> None:
    (replica,) = properties(server, f"{ENDPOINT}/deployments/blue")["replicas"]  # type: ignore[misc]

    blue = page.locator(".deployment").filter(has_text="blue")

    expect(blue.get_by_role("listitem")).to_have_text(f"replica 0 ready · process {replica['pid']}")


def test_a_replica_that_is_elsewhere_says_where_and_nothing_is_null(server: OnlineServer, open_page: OpenPage) -> None:
    replica = {"name": "replica 0", "state": "ready", "detail": None, "pid": None, "restarts": 1}
    page = open_page("about:blank")
    health = {"ready": True, "model": "fake", "replicas": [{**replica, "node": "10.0.0.7"}], "storage": None}
    page.route("**/health/ready", lambda route: route.fulfill(json=health))

    page.goto(f"{server.url}/app/#server")

    expect(page.get_by_text("replica 0 ready · node 10.0.0.7 · started again once")).to_be_visible()
    page.get_by_role("heading", name="The last ten minutes").wait_for()
    assert "null" not in page.locator("main").inner_text()


def test_jobs_are_listed_with_their_state(server: OnlineServer, open_page: OpenPage) -> None:
    answer = httpx.post(
        server.url, json={"inputs": "a red ball"}, headers={"prefer": "respond-async"}, verify=False, timeout=60
    )
    assert answer.status_code == 202
    page = open_page(f"{server.url}/app/#server")

    job = page.get_by_role("region", name="Jobs").get_by_role("listitem").filter(has_text=answer.json()["id"][:8])

    expect(job).to_contain_text("succeeded", timeout=DEADLINE_S * 1000)
    expect(job.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_job_is_cancelled_where_it_is_listed(tmp_path: Path, open_page: OpenPage) -> None:
    gate = Gate(tmp_path / "gate")
    with online_server(tmp_path / "data", {"FAKE_ENGINE_OWN_GATE": str(gate.path)}) as server:
        answer = httpx.post(
            server.url, json={"inputs": "a red ball"}, headers={"prefer": "respond-async"}, verify=False, timeout=60
        )
        gate.allow(1)
        page = open_page(f"{server.url}/app/#server")
        job = page.get_by_role("region", name="Jobs").get_by_role("listitem")
        expect(job).to_contain_text("running", timeout=DEADLINE_S * 1000)

        job.get_by_role("button", name="Cancel").click()

        expect(job).to_contain_text("canceled", timeout=DEADLINE_S * 1000)
        expect(job.get_by_role("button", name="Cancel")).to_have_count(0)
        told = httpx.get(server.url + answer.headers["location"], verify=False, timeout=60).json()
        assert told["state"] == "canceled"
        gate.open()
        another = {"inputs": "a blue ball", "parameters": {"num_inference_steps": 1}}
        assert httpx.post(server.url, json=another, verify=False, timeout=60).status_code == 200
        (steps,) = re.findall(
            r"^safelight_steps_run_total (\S+)", httpx.get(f"{server.url}/metrics", verify=False).text, re.M
        )
        assert float(steps) <= 3  # of 4 and 1: what had begun, and the other picture's


@pytest.mark.parametrize("address", ["https://pictures.localhost:{port}/", "{url}/endpoints/pictures/"])
def test_an_endpoints_page_makes_its_pictures_with_its_key_and_shows_the_server_to_the_administrator_alone(
    server: OnlineServer, open_page: OpenPage, address: str
) -> None:
    page = open_page(address.format(port=server.port, url=server.url))
    sign_in_with_key(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("this is no key of endpoint 'pictures'")
    sign_in_with_key(page, str(arm(server, "POST", f"{ENDPOINT}/listKeys")["primaryKey"]))

    make(page, "a red ball")

    expect(page.get_by_role("link", name="Server")).to_have_count(0)
    page.evaluate("location.hash = 'server'")
    expect(page.get_by_label("Administrator's token")).to_be_visible()
    expect(page.get_by_text("The last ten minutes")).to_have_count(0)
    sign_in(page, server.admin_token)
    page.get_by_role("heading", name="pictures").wait_for()
    expect(page.get_by_text("The last ten minutes")).to_be_visible()
    expect(page.get_by_role("link", name="Server")).to_be_visible()


def test_plots_go_on_while_nobody_looks_and_last_over_a_reload(server: OnlineServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.clock.install()
    page.goto(server.url)
    make(page, "a red ball")

    for _ in range(3):
        with page.expect_response("**/metrics"):
            page.clock.fast_forward(10_000)
    eventually(lambda: num_points(page) >= 2)
    page.reload()
    page.get_by_label("Prompt", exact=True).wait_for()
    assert num_points(page) >= 2
    page.route("**/metrics", lambda route: route.abort())
    page.get_by_role("link", name="Server").click()

    requests = page.locator("figure").filter(has_text="Requests")
    expect(requests.locator("figcaption")).to_contain_text("running 0")


def num_points(page: Page) -> int:
    """Of ten minutes, in this tab."""
    return int(page.evaluate("JSON.parse(sessionStorage.getItem('safelight-points') ?? '[]').length"))


def test_who_signs_out_sees_no_endpoints(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_label("Administrator's token")).to_be_visible()
    expect(page.get_by_role("heading", name="pictures")).not_to_be_visible()
