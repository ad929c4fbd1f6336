"""What a server and its replicas write to standard error, as one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from safelight.errors import SafelightError
from safelight.server.run import configure_logging
from safelight.serving.backends.child_process import spawned
from safelight.settings import Settings
from safelight.telemetry.log_lines import LogFormat
from tests.fakes import DEADLINE_S, FakeDeployment, FakeEngineOptions, fake_dispatcher
from tests.live_server import LiveServer, live_server

SECRET_WORDS = "the vault opens at dawn"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {
    "x-request-id": "the-id",
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "Authorization": "Bearer key-of-the-server",
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is the process's: it is put back."""
    root = logging.getLogger()
    handlers, level, hooks = [*root.handlers], root.level, (sys.excepthook, threading.excepthook)
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook, threading.excepthook = handlers, *hooks
    root.setLevel(level)


def configure(log_format: LogFormat) -> None:
    configure_logging(Settings(log_format=log_format), Console(quiet=True))


def post(server: LiveServer, prompt: str) -> httpx.Response:
    body = {"prompt": prompt, "size": "64x64"}
    return httpx.post(f"{server.url}/v1/images/generations?a=b", json=body, headers=HEADERS, timeout=DEADLINE_S)


def lines_of(capfd: pytest.CaptureFixture[str]) -> tuple[str, list[dict[str, Any]]]:
    text = capfd.readouterr().err
    return text, [json.loads(line) for line in text.splitlines()]


def test_every_line_is_json_and_names_its_request_in_the_replicas_process_too(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("json")
    with live_server(FakeDeployment(log_format="json"), api_key="key-of-the-server") as server:
        assert post(server, f"FAIL_STEP {SECRET_WORDS}").status_code == 500
    text, lines = lines_of(capfd)

    failures = [each for each in lines if "the engine failed" in each["message"]]
    assert [each["process"][:8] for each in failures] == ["replica "]
    assert "RuntimeError: step failed, as asked" in failures[0]["exception"]
    assert [(each["request_id"], each["trace_id"], each["span_id"]) for each in failures] == [("the-id", TRACE, SPAN)]
    (access,) = [each for each in lines if each.get("path") == "/v1/images/generations"]
    assert (access["request_id"], access["trace_id"], access["status"]) == ("the-id", TRACE, 500)
    assert SECRET_WORDS not in text
    assert "key-of-the-server" not in text


def test_what_a_replica_says_with_its_last_breath_is_json_and_its_last_words_are_text(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "words").write_text("no lamp in the darkroom")
    options = FakeEngineOptions(raise_on_load=str(tmp_path / "words"))

    async def start() -> str:
        dispatcher = fake_dispatcher(FakeDeployment(log_format="json", options=options))
        await dispatcher.start()
        with pytest.raises(SafelightError):
            await dispatcher.wait_until_ready()
        await dispatcher.stop()
        return dispatcher.last_words

    configure("json")
    last_words = asyncio.run(start())

    _, lines = lines_of(capfd)
    assert any("no lamp in the darkroom" in each.get("exception", "") for each in lines)
    assert "RuntimeError: no lamp in the darkroom" in last_words
    assert '{"time"' not in last_words


def test_what_a_library_prints_in_a_replica_is_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import os; os.write(2, b'plain words\\nand no end')"

    async def run() -> str:
        command = [sys.executable, "-c", program]
        async with spawned(command, {}, name="replica 0", log_format="json") as child:
            with pytest.raises(EOFError):
                await child.line.receive()
        return child.last_words

    assert asyncio.run(run()) == "plain words\nand no end"
    _, lines = lines_of(capfd)
    assert [(each["process"], each["message"]) for each in lines] == [
        ("replica 0", "plain words"),
        ("replica 0", "and no end"),
    ]


def test_warnings_are_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure("json")
    warnings.simplefilter("default")
    warnings.warn("a lamp flickers", stacklevel=1)

    (line,) = lines_of(capfd)[1]
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "a lamp flickers" in line["message"]


def test_text_names_the_request_of_each_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure("text")
    with live_server(api_key="key-of-the-server") as server:
        post(server, "FAIL_STEP")
    text = capfd.readouterr().err

    for line in ("the engine failed on a batch of 1 (request the-id)", 'HTTP/1.1" 500 (request the-id)'):
        assert line in text
