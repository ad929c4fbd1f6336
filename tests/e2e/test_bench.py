"""`safelight bench` against servers of ours, of others, and against what is none."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bare_server import CLOSE, HANG, PNG, bare_server, json_response, picture, response
from tests.e2e.processes import run_safelight
from tests.live_server import live_server

KEY = "sk-very-secret-key-of-the-test"
SHORT = ("--warm-up", "0", "--requests", "8", "--timeout", "60")


def bench(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_safelight("bench", *arguments, env=env)


def figures(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What `--json -` writes to standard output, where nothing else is."""
    done = bench(*arguments, "--json", "-", env=env)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def openai_picture(_: int) -> bytes:
    return json_response("200 OK", {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]})


def test_a_server_of_ours_is_measured_in_both_apis(tmp_path: Path) -> None:
    with live_server(api_key=KEY) as server:
        env = {"BENCH_KEY": KEY}
        face = figures(
            server.url, *SHORT, "--clients", "3", "--mix", "64x64@2-3:1,64x64@4:2", "--api-key-env", "BENCH_KEY",
            "--plot", str(tmp_path / "run.svg"), env=env,
        )  # fmt: skip
        (tmp_path / "key").write_text(KEY + "\n")
        openai = figures(f"{server.url}/v1", *SHORT, "--mix", "64x64", "--api-key-file", str(tmp_path / "key"))

    for each, api in ((face, "huggingface"), (openai, "openai")):
        (of_server,) = each["servers"]
        assert (of_server["api"], of_server["pictures"], of_server["errors"]) == (api, 8, 0)
        latency = of_server["latency_s"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert of_server["pictures_per_hour"] == pytest.approx(3_600 * 8 / of_server["seconds"])
    assert {each["shape"] for each in face["servers"][0]["shapes"]} == {"64x64@2-3", "64x64@4"}
    plot = ElementTree.parse(tmp_path / "run.svg")
    assert len(plot.findall(".//{http://www.w3.org/2000/svg}circle")) >= 8
    assert KEY not in (tmp_path / "run.svg").read_text()


def test_any_server_that_speaks_openai_is_asked_for_no_more_than_openai_knows() -> None:
    with bare_server(openai_picture) as server:
        made = figures(
            server.url + "/v1", *SHORT, "--mix", "1024x1024", "--model", "gpt-image", "--extra", '{"quality": "low"}'
        )

    assert made["servers"][0]["pictures"] == 8
    for sent in server.requests:
        assert sent.path == "/v1/images/generations"
        assert "authorization" not in sent.headers
        assert sent.body | {"prompt": ""} == {
            "model": "gpt-image", "prompt": "", "n": 1, "size": "1024x1024", "quality": "low",
        }  # fmt: skip
    assert len({str(sent.body["prompt"]) for sent in server.requests[1:]}) > 4


def test_what_is_to_be_paid_is_told_for_1000_pictures() -> None:
    with bare_server(picture) as server:
        made = figures(server.url, *SHORT, "--price-per-hour", "3.6")["servers"][0]

    assert made["cost_per_1000_pictures"] == pytest.approx(3_600 / made["pictures_per_hour"])


def test_two_servers_take_turns_and_their_ratios_are_told() -> None:
    order = []
    with (
        bare_server(lambda _: order.append("first") or picture(0)) as first,  # type: ignore[func-returns-value]
        bare_server(lambda _: order.append("second") or openai_picture(0)) as second,  # type: ignore[func-returns-value]
    ):
        made = figures(first.url, *SHORT, "--compare", second.url + "/v1", "--rounds", "3")

    assert [each["url"] for each in made["servers"]] == [first.url + "/", second.url + "/v1/images/generations"]
    assert [each["pictures"] for each in made["servers"]] == [24, 24]
    assert order[2:] == ["first"] * 8 + ["second"] * 16 + ["first"] * 16 + ["second"] * 8
    assert [each["what"] for each in made["ratios"]] == ["pictures a second", "p50", "p95", "p99"]
    assert all(each["low"] <= each["median"] <= each["high"] and each["rounds"] == 3 for each in made["ratios"])


def test_the_key_of_one_server_is_not_sent_to_the_other() -> None:
    with bare_server(picture) as first, bare_server(picture) as second:
        figures(
            first.url, *SHORT, "--compare", second.url, "--rounds", "1", "--api-key-env", "ONE",
            "--compare-api-key-env", "OTHER", env={"ONE": KEY, "OTHER": "other"},
        )  # fmt: skip

    assert {sent.headers["authorization"] for sent in first.requests} == {f"Bearer {KEY}"}
    assert {sent.headers["authorization"] for sent in second.requests} == {"Bearer other"}


def test_failures_are_counted_by_what_was_said_and_no_terminal_obeys_it() -> None:
    long = "".join(str(number) for number in range(100, 190))  # in one word, longer than a line
    said = ["500 Oh", {"error": {"message": "out \x1b[2J of paint"}}], ["418 No", {"error": f"short {long}"}]

    def answer(number: int) -> bytes:
        return picture(0) if number % 3 == 0 else json_response(*said[number % 3 - 1])

    with bare_server(answer) as server:
        done = bench(server.url, "--warm-up", "0", "--requests", "9", env={"COLUMNS": "40"})

    assert done.returncode == 0
    assert re.search(r"^500 +3 +out \\x1b\[2J of paint", done.stdout, re.MULTILINE)
    assert re.search(r"^418 +3 +short", done.stdout, re.MULTILINE)
    assert long in re.sub(r"\s", "", done.stdout)
    assert re.search(r"^all( +\d+\.\d+){5} +3 +6 *$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (CLOSE, "closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf" + CLOSE, "closed"),
        (b"HTTP/1.1 200 OK\r\n" + CLOSE, "no HTTP"),
        (response("200 OK", PNG)[:-1], "timeout"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "no HTTP"),
        (response("200 OK", b"<html>Welcome</html>"), "no picture"),
        (response("200 OK", b""), "no picture"),
        (response("302 Found", b"", "location: http://127.0.0.1:9/"), "302"),
        (HANG, "timeout"),
    ],
    ids=[
        "closes",
        "closes within",
        "closes in the head",
        "stalls within",
        "no HTTP",
        "HTML",
        "nothing",
        "elsewhere",
        "hangs",
    ],
)
def test_a_server_that_breaks_in_the_middle_is_told_by_how_it_broke(answer: bytes, kind: str) -> None:
    with bare_server(lambda number: picture(0) if number < 3 else answer) as server:
        made = figures(server.url, "--warm-up", "0", "--requests", "4", "--timeout", "2")["servers"][0]

    assert (made["pictures"], made["errors"]) == (2, 2)
    assert [each["status"] for each in made["error_kinds"]] == [kind]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (json_response("401 No", {"error": {"message": f"Incorrect API key: {KEY}"}}), "401: Incorrect API key: ***"),
        (json_response("200 OK", {"data": [{"b64_json": "aGVsbG8gd29ybGQ="}]}), "no picture"),
        (CLOSE, "closed"),
        (b"\x00\x01\x02\r\n\r\n", "no HTTP"),
        (HANG, "no answer in 1 s"),
    ],
    ids=["no key", "text", "closes", "garbage", "hangs"],
)
@pytest.mark.parametrize("path", ["", "/v1"])
def test_a_server_that_makes_no_first_picture_is_not_measured(answer: bytes, message: str, path: str) -> None:
    with bare_server(lambda _: answer) as server:
        done = bench(server.url + path, "--timeout", "1", "--api-key-env", "KEY", env={"KEY": KEY})

    assert done.returncode == 1
    assert message in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no-such-host.invalid"])
def test_a_host_that_is_none_is_told_as_such(host: str) -> None:
    done = bench(f"http://{host}/")

    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"error: http://{host}/ makes no picture: no host: {host[:64]!r} is no name of a host that is known here\n"
    )


def test_where_nothing_listens_it_says_so() -> None:
    with bare_server(picture) as server:
        pass
    done = bench(server.url)

    assert done.returncode == 1
    assert "nothing listens there" in done.stderr


@pytest.mark.parametrize(("choice", "asked_on"), [((), False), (("--ignore-retry-after",), True)])
def test_clients_come_back_when_they_are_told_unless_told_otherwise(choice: tuple[str, ...], asked_on: bool) -> None:
    refusal = json_response("429 Full", {"error": "full"}, "retry-after: 3600")
    with bare_server(lambda number: refusal if number else picture(0)) as server:
        made = figures(server.url, "--clients", "4", "--warm-up", "0", "--duration", "2", *choice)["servers"][0]

    assert made["told_to_come_back"] == made["errors"] == len(server.requests) - 1
    assert made["error_kinds"][0] | {"count": 0} == {"status": "429", "message": "full", "count": 0}
    assert (made["errors"] > 4) is asked_on


def test_a_server_that_says_to_come_back_next_week_does_not_keep_a_count_from_its_end() -> None:
    refusal = json_response("503 Full", {"error": "full"}, "retry-after: 604800")
    with bare_server(lambda number: refusal if number else picture(0)) as server:
        made = figures(server.url, "--warm-up", "0", "--requests", "3", "--timeout", "1")["servers"][0]

    assert (made["errors"], made["told_to_come_back"]) == (3, 3)


def test_a_server_that_still_loads_is_waited_for() -> None:
    loads = json_response("503 Later", {"error": "loads"}, "retry-after: 0")
    with bare_server(lambda number: loads if number < 3 else picture(0)) as server:
        made = figures(server.url, *SHORT)["servers"][0]

    assert (made["pictures"], made["errors"]) == (8, 0)


def test_a_kept_connection_that_the_server_has_closed_is_no_failure() -> None:
    with bare_server(picture, is_kept=False) as server:
        made = figures(server.url, *SHORT, "--clients", "2")["servers"][0]

    assert (made["pictures"], made["errors"]) == (8, 0)


def test_what_a_server_says_too_much_answers_no_other_request() -> None:
    said = picture(0) + json_response("500 Oh", {"error": "of nobody"})
    with bare_server(lambda _: said) as server:
        made = figures(server.url, *SHORT)["servers"][0]

    assert (made["pictures"], made["errors"]) == (8, 0)


def test_a_redirect_is_not_followed_and_says_where_it_leads() -> None:
    moved = response("307 Moved", b"", f"location: https://elsewhere.example/v1?code={KEY}")
    with bare_server(lambda _: moved) as server:
        done = bench(server.url)

    assert done.returncode == 1
    assert "307: not followed to https://elsewhere.example/v1;" in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_server_that_dies_in_between_takes_no_figures_of_the_other_along() -> None:
    with bare_server(lambda number: picture(0) if number < 9 else CLOSE) as first, bare_server(picture) as second:
        made = figures(first.url, *SHORT, "--compare", second.url, "--rounds", "3")

    assert [each["pictures"] for each in made["servers"]] == [8, 24]
    assert made["servers"][0]["error_kinds"][0]["status"] == "closed"
    assert {each["rounds"] for each in made["ratios"]} == {1}


def test_a_certificate_that_nobody_vouches_for_is_told_with_the_option_that_does(tmp_path: Path) -> None:
    with live_server(tls=True, data_dir=tmp_path) as server:
        refused = bench(server.url)
        made = figures(server.url, *SHORT, "--certificate", str(tmp_path / "tls-certificate.pem"))

    assert refused.returncode == 1
    assert "TLS: its certificate is not known" in refused.stderr
    assert "--certificate" in refused.stderr
    assert made["servers"][0]["pictures"] == 8


def test_requests_at_a_rate_do_not_wait_for_each_other() -> None:
    with bare_server(lambda number: picture(0) if number == 0 else HANG) as server:
        made = figures(server.url, "--rate", "200", "--warm-up", "0", "--requests", "20", "--timeout", "2")

    assert made["servers"][0]["error_kinds"] == [{"status": "timeout", "message": "no answer in 2 s", "count": 20}]
    assert len(server.requests) == 21


def test_a_model_gets_a_server_of_its_own_which_is_gone_after(tiny_flux_folder: Path, tmp_path: Path) -> None:
    env = {"SAFELIGHT_API_KEY": "another", "TMPDIR": str(tmp_path)}
    key = tmp_path / "key"
    key.write_text(KEY)
    made = figures(
        str(tiny_flux_folder), *SHORT, "--clients", "2", "--api-key-file", str(key),
        "--serve-options", f"--max-batch-size 2 --api-key-file {key}", env=env,
    )  # fmt: skip

    assert (made["servers"][0]["pictures"], made["servers"][0]["errors"]) == (8, 0)
    assert not list(tmp_path.glob("safelight-bench-*"))


def test_a_model_that_cannot_be_served_is_told_in_the_words_of_its_server() -> None:
    done = bench("no-such-model-anywhere", *SHORT)

    assert done.returncode == 1
    assert "no-such-model-anywhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--mix", "256"], "WIDTHxHEIGHT@STEPS:WEIGHT"),
        (["--mix", "256x256@8-4"], "the smaller number first"),
        (["--mix", "256x256:0"], "leave out what is not to be asked"),
        (["--mix", ""], "WIDTHxHEIGHT@STEPS:WEIGHT"),
        (["--rate", "0"], "above 0"),
        (["--rate", "nan"], "above 0"),
        (["--rate", "10001"], "10,000 requests a second"),
        (["--duration", "inf"], "an end"),
        (["--rate", "1", "--clients", "1"], "give one of them"),
        (["--rate", "1", "--honour-retry-after"], "leave it out"),
        (["--duration", "1", "--requests", "1"], "give one of them"),
        (["--rounds", "2"], "name the other by --compare"),
        (["--api", "azure"], "openai nor huggingface"),
        (["--extra", "[1]"], "JSON object"),
        (["--extra", "{"], "no JSON"),
        (["--extra", '{"a":' * 20_000], "no JSON"),
        (["--extra", '{"n": 4}'], "counts as one picture"),
        (["--api-key-env", "NOT_THERE"], "no key in the variable NOT_THERE"),
        (["--api-key-file", "/nowhere"], "cannot be read"),
        (["--serve-options", "--replicas 2"], "not for a URL"),
        (["--json", "/nowhere/run.json"], "cannot be written"),
        (["--price-per-hour", "-1"], "no price"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_asked(options: list[str], remedy: str) -> None:
    with bare_server(picture) as server:
        done = bench(server.url, *options)

    assert done.returncode == 1
    assert remedy in done.stderr
    assert not server.requests


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org", "http://", f"http://user:{KEY}@127.0.0.1:9/", "http://127.0.0.1:x", "http://a..b/"),
        *("localhost:8000", "127.0.0.1:8000/v1", "[::1]:80"),
    ],
)
def test_what_is_no_url_is_told_and_a_password_in_it_is_not(url: str) -> None:
    done = bench(url)

    assert done.returncode == 1
    assert "error: " in done.stderr
    assert KEY not in done.stderr


def test_a_query_may_hold_a_secret_and_is_sent_but_not_shown() -> None:
    with bare_server(picture) as server:
        made = figures(f"{server.url}/score?code={KEY}", *SHORT)

    assert made["servers"][0]["url"] == f"{server.url}/score"
    assert {sent.path for sent in server.requests} == {f"/score?code={KEY}"}
