"""The server's view shows what others have written: as text, within the page, and where it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from safelight.model.spec import LoraFile
from tests.fakes import FAKE_SPEC, FakeDeployment
from tests.live_server import LiveServer, live_server
from tests.online_server import online_server
from tests.page.actions import make
from tests.page.conftest import KEY
from tests.page.test_quality import violations

OpenPage = Callable[..., Page]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
LONG = "a" * 200
ENDPOINT = {
    "name": HOSTILE,
    "properties": {
        "authMode": "Key", "traffic": {LONG: 100, HOSTILE: 0}, "provisioningState": HOSTILE, "warnings": None,
        "scoringUri": "javascript:document.title='owned'",
    },
}  # fmt: skip
DEPLOYMENTS = [
    {
        "name": name,
        "sku": {"capacity": 1},
        "properties": {
            "model": f"{LONG}{HOSTILE}", "provisioningState": "Failed", "warnings": [HOSTILE],
            "provisioningError": {"code": "x", "message": HOSTILE + LONG},
            "replicas": [{"name": HOSTILE, "state": LONG, "detail": HOSTILE, "restarts": 0, "node": LONG}],
        },
    }
    for name in (LONG, HOSTILE)
]  # fmt: skip
JOB = {"id": f"{HOSTILE}", "state": "queued", "position": 1, "step": None, "steps": None, "created_at": "2026-01-01"}


def answer_with(content: dict[str, object]) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=content)


def open_server_view(page: Page, server: LiveServer, logs: Callable[[], str] = lambda: HOSTILE) -> None:
    """As an administrator sees it, with an endpoint that nobody could create."""
    page.route("**/onlineEndpoints?*", answer_with({"value": [ENDPOINT]}))
    page.route("**/deployments?*", answer_with({"value": DEPLOYMENTS}))
    page.route("**/connections?*", answer_with({"value": [{"name": HOSTILE + LONG, "properties": {}}]}))
    page.route("**/getLogs?*", lambda route: route.fulfill(json={"content": logs()}))
    page.route("**/listKeys?*", answer_with({"primaryKey": LONG, "secondaryKey": HOSTILE}))
    page.goto(f"{server.url}/app/#server")
    page.get_by_label("Administrator's token").fill("a-token")
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("article", name=HOSTILE).wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1920, "light")])
def test_what_the_server_tells_is_text_within_the_page(
    server: LiveServer, open_page: OpenPage, width: int, scheme: str
) -> None:
    page = open_page("about:blank", viewport={"width": width, "height": 500}, color_scheme=scheme)
    page.route("**/jobs", answer_with({"jobs": [JOB]}))
    open_server_view(page, server)
    page.get_by_text("Logs").first.click()
    page.get_by_role("button", name="Show the keys").click()

    for text in (LONG + HOSTILE, HOSTILE + LONG, HOSTILE):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.locator(".logs")).to_have_text(HOSTILE)

    assert page.title() == "Safelight"
    assert violations(page) == []


def test_names_without_an_end_stay_within_the_page(open_page: OpenPage) -> None:
    loras = tuple(LoraFile(name=name, file="/nowhere", scale=1.0) for name in (LONG, HOSTILE))
    spec = replace(FAKE_SPEC, name=LONG, description=HOSTILE + LONG, loras=loras, examples=(HOSTILE, LONG))
    with live_server(FakeDeployment(spec=spec)) as server:
        page = open_page(server.url, viewport={"width": 360, "height": 500}, device_scale_factor=2)
        expect(page.get_by_role("button", name=HOSTILE)).to_be_visible()
        page.get_by_text("More", exact=True).click()
        for name in (LONG, HOSTILE):
            page.get_by_label(name, exact=True).check()
        page.get_by_text("Copy as code").click()
        make(page, LONG)

        assert page.title() == "Safelight"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_logs_stay_where_somebody_reads_them_and_follow_where_nobody_does(
    server: LiveServer, open_page: OpenPage
) -> None:
    page = open_page("about:blank")
    page.clock.install()
    lines = [f"line {index}" for index in range(200)]
    open_server_view(page, server, lambda: "\n".join(lines))
    page.get_by_text("Logs").first.click()
    logs = page.locator(".logs")
    expect(logs).to_contain_text("line 199")
    at_end = "box => box.scrollTop + box.clientHeight >= box.scrollHeight - 8"
    assert logs.evaluate(at_end)

    lines.append("line 200")
    page.clock.fast_forward(2_500)
    expect(logs).to_contain_text("line 200")
    assert logs.evaluate(at_end)
    logs.evaluate("box => box.scrollTop = 100")
    lines.append("line 201")
    page.clock.fast_forward(2_500)

    expect(logs).to_contain_text("line 201")
    assert logs.evaluate("box => box.scrollTop") == 100
    page.route("**/getLogs?*", lambda route: route.fulfill(status=503, json={"error": {"message": "busy"}}))
    page.clock.fast_forward(2_500)
    expect(page.get_by_role("alert").filter(has_text="busy")).to_be_visible()
    expect(logs).to_contain_text("line 201")


def test_a_job_that_cannot_be_canceled_says_why_and_stays(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.route("**/jobs", answer_with({"jobs": [JOB | {"id": f"{index:08}"} for index in range(25)]}))
    page.route(
        "**/jobs/*", lambda route: route.fulfill(status=503, json={"error": {"message": "the database is away"}})
    )
    page.goto(f"{server.url}/app/#server")
    jobs = page.get_by_role("region", name="Jobs")

    jobs.get_by_role("button", name="Cancel 00000003").click()

    expect(jobs.get_by_role("alert")).to_have_text("the database is away")
    expect(jobs.get_by_role("listitem")).to_have_count(20)
    expect(jobs).to_contain_text("and 5 older ones")


def test_the_administrator_needs_no_key_of_the_servers_model(tmp_path: Path, open_page: OpenPage) -> None:
    with online_server(tmp_path / "data", {"SAFELIGHT_API_KEY": KEY}) as server:
        page = open_page(f"{server.url}/app/#server")
        page.get_by_label("Key", exact=True).wait_for()

        page.get_by_label("Administrator's token").fill(server.admin_token)
        page.get_by_role("button", name="Open", exact=True).click()

        expect(page.get_by_text("There is none yet")).to_be_visible()
        expect(page.get_by_text("The last ten minutes")).to_have_count(0)


def test_hostile_json_is_what_it_was(server: LiveServer, open_page: OpenPage) -> None:
    """Seeds are rewritten on their way, and nothing else that looks like them."""
    page = open_page(server.url)
    for prompt in (
        '"seed":12345678901234567890',
        '\\"seed": 12345678901234567890, \\',
        '{"seed":"12345678901234567890"}',
    ):
        with page.expect_request("**/v1/images/generations") as sent:
            make(page, prompt)
        assert json.loads(str(sent.value.post_data))["prompt"] == prompt
        expect(page.locator(".stage .recipe")).to_contain_text(prompt)
