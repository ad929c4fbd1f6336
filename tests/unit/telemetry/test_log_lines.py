"""Lines of the log, as a program and as people read them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from safelight.telemetry.log_lines import JsonFormatter, JsonLines, TextFormatter, to_text
from safelight.telemetry.names import RequestNames, called

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NAMES = RequestNames("the-id", f"00-{TRACE}-{SPAN}-01")


def record(message: str, *args: object, name: str = "safelight.x", is_error: bool = False) -> logging.LogRecord:
    exception: Any = sys.exc_info() if is_error else None
    return logging.LogRecord(name, logging.WARNING, "x.py", 1, message, args, exception)


def fields_of(line: str) -> dict[str, Any]:
    assert "\n" not in line
    assert line.isascii()
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_line_has_its_time_level_logger_message_and_the_names_of_its_request() -> None:
    with called(NAMES):
        fields = fields_of(JsonFormatter().format(record("a %s", "lamp")))

    assert datetime.fromisoformat(fields.pop("time")).tzinfo is not None
    assert fields == {
        "level": "warning",
        "logger": "safelight.x",
        "message": "a lamp",
        "request_id": "the-id",
        "trace_id": TRACE,
        "span_id": SPAN,
    }


def test_outside_of_a_request_there_are_no_names() -> None:
    assert fields_of(JsonFormatter().format(record("a"))).keys() == {"time", "level", "logger", "message"}


def test_an_exception_is_one_field_and_the_line_is_still_one() -> None:
    try:
        raise ValueError("two\nlines \u2028 \ud800")
    except ValueError:
        line = JsonFormatter().format(record("it failed", is_error=True))

    assert "ValueError: two\nlines \u2028" in fields_of(line)["exception"]


SERVER = """
import gc, logging, sys, threading, warnings
from safelight.telemetry.log_lines import handler_for, log_everything

logging.basicConfig(handlers=[handler_for({log_format!r})], level="DEBUG")
if {log_format!r} == "json":
    log_everything()
prompt = "the vault opens at dawn"

class Broken:
    def __str__(self):
        raise RuntimeError("no text")

    def __del__(self):
        raise RuntimeError("two\\nlines")

logging.getLogger("library").warning("%d of %d", prompt)
logging.getLogger("library").warning("a %(what)s", prompt)
logging.getLogger("library").warning("%s and %s", prompt, Broken())
gc.collect()
if {log_format!r} == "json":
    logging.getLogger("library").warning("how we came here", stack_info=True)
    warnings.warn("not for long")
    print("printed", "half a line", end="")
    print(" and the other")
    print("to standard error", file=sys.stderr, flush=True)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    raise LookupError("the end")
"""
"""What libraries do that a log is not made for."""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_library_writes_what_is_no_line_or_the_values_of_one_that_cannot_be_made(log_format: str) -> None:
    program = SERVER.replace("{log_format!r}", repr(log_format))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stderr.count("could not be made") == 3
    assert "the vault" not in done.stderr
    assert done.stdout == ""
    if log_format == "json":
        told = [fields_of(each) for each in done.stderr.splitlines()]
        assert ("stdout", "printed half a line and the other") in [(each["logger"], each["message"]) for each in told]
        assert ("stderr", "to standard error") in [(each["logger"], each["message"]) for each in told]
        said = " ".join(f"{each['message']} {each.get('exception', '')} {each.get('stack', '')}" for each in told)
        for word in ("two\nlines", "Stack (most recent call last)", "not for long", "ZeroDivisionError", "the end"):
            assert word in said


def test_an_access_line_has_what_was_asked_as_fields() -> None:
    args = ("127.0.0.1:1", "POST", "/score", "1.1", 200)
    fields = fields_of(JsonFormatter().format(record('%s - "%s %s HTTP/%s" %d', *args, name="uvicorn.access")))

    assert (fields["method"], fields["path"], fields["status"]) == ("POST", "/score", 200)


def test_text_names_the_request_once() -> None:
    with called(NAMES):
        assert TextFormatter().format(record("a lamp")).endswith("WARNING safelight.x: a lamp (request the-id)")
        assert TextFormatter().format(record("request the-id: broken")).count("the-id") == 1
    assert TextFormatter("replica 7").format(record("a")).endswith("replica 7 WARNING safelight.x: a")


def test_what_another_process_says_becomes_json_however_it_comes() -> None:
    written: list[bytes] = []
    own = JsonFormatter("replica 7").format(record("mine")).encode()
    lines = JsonLines("replica 0", written.append)

    for said in (b"half ", b"a line\n{not json}\n" + own[:10], own[10:] + b"\n\n  \n[1]\nbroken \xff", b""):
        lines(said)

    told = [fields_of(each.decode().rstrip("\n")) for each in written]
    assert [each["message"] for each in told] == ["half a line", "{not json}", "mine", "[1]", "broken \ufffd"]
    assert [each["process"] for each in told] == ["replica 0", "replica 0", "replica 7", "replica 0", "replica 0"]


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    written: list[bytes] = []
    lines = JsonLines("replica 0", written.append)

    for _ in range(100):
        lines(b"x" * 4096)

    assert sum(map(len, written)) > 300_000


def test_last_words_are_text_whatever_the_log_is() -> None:
    try:
        raise RuntimeError("no lamp")
    except RuntimeError:
        line = JsonFormatter("replica 7").format(record("it failed", is_error=True))

    text = to_text(f"plain words\n{line}\n")

    assert text.startswith("plain words\n")
    assert "WARNING safelight.x: it failed\nTraceback" in text
    assert "RuntimeError: no lamp" in text
    assert "{" not in text
