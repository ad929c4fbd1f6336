"""The administrator's view: endpoints, traffic and keys, changed where the command line would change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.live_server import eventually
from tests.online_server import OnlineServer, online_server

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


def test_who_signs_out_sees_no_endpoints(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_label("Administrator's token")).to_be_visible()
    expect(page.get_by_role("heading", name="pictures")).not_to_be_visible()
