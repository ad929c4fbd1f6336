"""Clients that keep a connection and do nothing with it, and those that take their time for a reason."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from safelight.server.web.page import built_files
from tests.fakes import DEADLINE_S, FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.raw_http import Wire, parse
from tests.waiting import eventually

HOST = "Host: x\r\n"
GET = f"GET /health HTTP/1.1\r\n{HOST}\r\n"
KEY = "Authorization: Bearer k\r\n"
POST = f"POST /score HTTP/1.1\r\n{HOST}{KEY}Content-Type: application/json\r\n"
HASTE = {"header_timeout_s": 0.5, "keep_alive_timeout_s": 0.5, "stall_timeout_s": 0.5}
NEVER = {"header_timeout_s": 3600, "keep_alive_timeout_s": 3600, "stall_timeout_s": 3600}

SLOW = {"header_timeout_s": 0.2, "keep_alive_timeout_s": 0.2, "stall_timeout_s": 2}
"""Silence is soon noticed; those who move on have time."""


@pytest.fixture(scope="module")
def hasty_http() -> Iterator[LiveServer]:
    """A server whose every deadline is short, with a key."""
    with live_server(api_key="k", **HASTE) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(api_key="k", tls=True, data_dir=tmp_path_factory.mktemp("data"), **HASTE) as server:
        yield server


@pytest.fixture(scope="module", params=["hasty_http", "hasty_https"])
def hasty(request: pytest.FixtureRequest) -> LiveServer:
    server: LiveServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def patient() -> Iterator[LiveServer]:
    """A server with a key whose deadlines nobody reaches."""
    with live_server(api_key="k", **NEVER) as server:
        yield server


SILENCES: dict[str, tuple[str, list[int]]] = {
    "nothing": ("", []),
    "one byte": ("G", [408]),
    "half a request line": ("GET /hea", [408]),
    "a header without end": (f"GET /health HTTP/1.1\r\n{HOST}", [408]),
    "one request and no more": (GET, [200]),
    "one request and half of another": (GET + GET[:-2], [200, 408]),
    "a body that does not begin": (f"{POST}Content-Length: 100\r\n\r\n", [408]),
    "half of a body": (f"{POST}Content-Length: 100\r\n\r\n{{", [408]),
    "half of a large body": (f"{POST}Content-Length: 1000000\r\n\r\n" + " " * 500_000, [408]),
    "half of a chunk": (f"{POST}Transfer-Encoding: chunked\r\n\r\n10\r\n{{", [408]),
    "chunks without end": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n", [408]),
    "a body that nobody reads": (GET[:-2] + "Content-Length: 100\r\n\r\n", [200]),
}


@pytest.mark.parametrize(("sent", "statuses"), SILENCES.values(), ids=SILENCES)
def test_a_client_that_falls_silent_is_told_what_it_began_and_the_connection_ends(
    hasty: LiveServer, sent: str, statuses: list[int]
) -> None:
    with Wire(hasty) as wire:
        received = wire.send(sent).read_to_end()

    answered = []
    while received:
        answer = parse(received)
        answered.append(answer.status)
        received = answer.rest
    assert answered == statuses


def test_a_client_that_waits_to_be_asked_for_its_body_and_then_is_silent_is_closed(hasty: LiveServer) -> None:
    with Wire(hasty) as wire:
        received = wire.send(f"{POST}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n").read_to_end()

    assert received.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 408 " in received


DRIPS = {
    "a header": (f"GET /health HTTP/1.1\r\n{HOST}X: ", b"a", b"HTTP/1.1 408 "),
    "a header, field by field": (f"GET /health HTTP/1.1\r\n{HOST}", b"X: a\r\n", b"HTTP/1.1 408 "),
    "the header of a second request": (GET + GET[:-2] + "X: ", b"a", b"HTTP/1.1 408 "),
    "a body": (f"{POST}Content-Length: 1000000\r\n\r\n", b" ", b"HTTP/1.1 408 "),
    "chunks": (f"{POST}Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"HTTP/1.1 408 "),
    "a body after its answer": (GET[:-2] + "Content-Length: 1000000\r\n\r\n", b" ", b"HTTP/1.1 200 "),
}


@pytest.mark.parametrize(("begin", "drop", "answer"), DRIPS.values(), ids=DRIPS)
def test_a_client_that_sends_drop_by_drop_is_closed(hasty: LiveServer, begin: str, drop: bytes, answer: bytes) -> None:
    with Wire(hasty) as wire:
        received = wire.send(begin).read_while_sending(lambda _: drop, num_pieces=1000)

    assert answer in received


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16"], ids=["nothing", "half a hello", "a byte"]
)
def test_a_tls_handshake_that_does_not_end_is_closed(hasty_https: LiveServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty_https.port), timeout=DEADLINE_S) as sock:
        sock.sendall(sent)

        assert sock.recv(1) == b""


def test_a_tls_client_that_never_says_goodbye_is_closed(hasty_https: LiveServer) -> None:
    with Wire(hasty_https) as wire:
        wire.send(GET).read_to_end()  # its end is TLS's; that of the connection comes when we do not answer

        raw = socket.socket(fileno=wire.sock.detach())
        with raw:
            raw.settimeout(DEADLINE_S)
            assert raw.recv(1) == b""


EARLY: dict[str, tuple[str, int]] = {
    "the wrong key": (f"POST /score HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n", 401),
    "no key, in chunks": (f"POST /score HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n", 401),
    "no key, and half of the body": (f"POST /score HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n{{", 401),
    "no key, with a question first": (
        f"POST /score HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
        401,
    ),
    "too large a body": (f"{POST}Content-Length: 100000000\r\n\r\n", 413),
    "another content type": (
        f"POST /v1/images/generations HTTP/1.1\r\n{HOST}{KEY}Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n",
        415,
    ),
    "no such route": (f"POST /nowhere HTTP/1.1\r\n{HOST}{KEY}Content-Length: 1000\r\n\r\n", 404),
    "the wrong method": (f"DELETE /score HTTP/1.1\r\n{HOST}{KEY}Content-Length: 1000\r\n\r\n", 405),
    "a route that reads no body": (f"GET /health HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n", 200),
    "no request": (f"POST /score HTTP/2.0\r\n{HOST}Content-Length: 1000\r\n\r\n", 505),
}


@pytest.mark.parametrize(("sent", "status"), EARLY.values(), ids=EARLY)
def test_an_answer_before_the_body_is_there_says_that_the_connection_ends_and_it_ends(
    patient: LiveServer, sent: str, status: int
) -> None:
    with Wire(patient) as wire:
        answer = parse(wire.send(sent).read_to_end())

    assert answer.status == status
    assert answer.fields["connection"] == "close"


def test_a_body_that_does_not_come_within_the_requests_time_is_answered_and_closed() -> None:
    with live_server(request_timeout_s=0.3, **NEVER) as server, Wire(server) as wire:
        answer = parse(wire.send(f"{POST}Content-Length: 1000\r\n\r\n").read_to_end())

    assert (answer.status, answer.fields["connection"]) == (408, "close")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_who_sends_a_large_body_to_its_end_still_reads_the_answer_that_came_early(tmp_path: Path, tls: bool) -> None:
    with live_server(tls=tls, data_dir=tmp_path, **NEVER) as server, Wire(server) as wire:
        wire.send(f"{POST}Content-Length: 60000000\r\n\r\n")
        for _ in range(60):
            wire.send(b" " * 1_000_000)

        assert wire.read_answer().status == 413


def test_an_answered_connection_is_kept_for_the_next_request(patient: LiveServer) -> None:
    body = json.dumps({"inputs": "a fox"})
    with Wire(patient) as wire:
        for _ in range(3):
            answer = wire.send(f"{POST}Content-Length: {len(body)}\r\n\r\n{body}").read_answer()

            assert answer.status == 200
            assert "connection" not in answer.fields


OPENAPI = f"GET /openapi.json HTTP/1.1\r\n{HOST}\r\n"
NUM_ANSWERS = 300
"""More than fits into the kernel's buffers."""


def test_a_client_that_does_not_take_its_answers_is_closed(hasty: LiveServer) -> None:
    with Wire(hasty, receive_buffer=4096) as wire:
        wire.send(OPENAPI * NUM_ANSWERS)
        let_deadlines_pass(hasty)

        assert num_answers_left(wire) < NUM_ANSWERS


def test_a_client_that_takes_its_answers_byte_by_byte_is_closed(hasty: LiveServer) -> None:
    with Wire(hasty, receive_buffer=4096) as wire:
        wire.send(OPENAPI * NUM_ANSWERS)
        for _ in range(8):
            wire.sock.recv(1)
            let_deadlines_pass(hasty, times=1)

        assert num_answers_left(wire) < NUM_ANSWERS


def test_a_client_that_does_not_take_its_last_answer_is_closed(hasty: LiveServer) -> None:
    with Wire(hasty, receive_buffer=4096) as wire:
        wire.send(OPENAPI * NUM_ANSWERS + OPENAPI[:-2] + "Connection: close\r\n\r\n")
        let_deadlines_pass(hasty)

        assert num_answers_left(wire) < NUM_ANSWERS


def num_answers_left(wire: Wire) -> int:
    received = bytearray()
    try:
        while part := wire.sock.recv(1 << 20):
            received += part
    except OSError:
        pass
    return received.count(b"HTTP/1.1 200 ")


def let_deadlines_pass(server: LiveServer, *, times: int = 4) -> None:
    """As long as it takes the server to close so many silent connections."""
    for _ in range(times):
        with suppress(ssl.SSLEOFError), Wire(server) as silent:  # a server that is busy may end the handshake
            assert silent.read_to_end() == b""


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_client_that_takes_its_answers_slowly_gets_them_all(tmp_path: Path, tls: bool) -> None:
    with live_server(tls=tls, data_dir=tmp_path, **SLOW) as server, Wire(server, receive_buffer=4096) as wire:
        wire.send(OPENAPI * 100 + OPENAPI[:-2] + "Connection: close\r\n\r\n")
        received = bytearray()
        for _ in range(20):
            received += wire.sock.recv(100_000)
            let_deadlines_pass(server, times=1)
        received += wire.read_to_end()

    assert received.count(b"HTTP/1.1 200 ") == 101


def test_a_body_that_comes_slowly_arrives(tmp_path: Path) -> None:
    body = json.dumps({"inputs": "a fox", "parameters": {}}).encode() + b" " * 200_000
    with live_server(data_dir=tmp_path, **SLOW) as server, Wire(server) as wire:
        wire.send(f"{POST}Content-Length: {len(body)}\r\n\r\n")
        for start in range(0, len(body), 10_000):
            wire.send(body[start : start + 10_000])
            let_deadlines_pass(server, times=1)

        assert wire.read_answer().status == 200


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
def test_no_deadline_ends_a_request_that_the_server_works_on(tmp_path: Path, accept: str) -> None:
    gate = Gate(tmp_path / "gate")
    body = json.dumps({"inputs": "a fox"})
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    with live_server(deployment, **HASTE) as server, Wire(server) as wire:
        wire.send(f"{POST}Accept: {accept}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        let_deadlines_pass(server)
        gate.open()

        received = wire.read_to_end()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert (b"\x89PNG" in received) or (b"event: " in received)


@pytest.mark.parametrize("sent", ["", "GET /health HTTP/1.1\r\n", GET, GET[:-2] + "Content-Length: 9\r\n\r\n"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_connections_without_a_request_make_room_for_those_that_have_one(tmp_path: Path, sent: str, tls: bool) -> None:
    with live_server(max_connections=8, tls=tls, data_dir=tmp_path, **NEVER) as server:
        silent = []
        try:
            for _ in range(12):
                silent.append(Wire(server).send(sent))
                answer = httpx.post(f"{server.url}/score", json={"inputs": "a fox"}, verify=server.tls or False)

                assert answer.status_code == 200
            silent += [Wire(server) for _ in range(8)]  # so many fit; the clients above left when they had their answer
            with suppress(ConnectionResetError):
                silent[0].read_to_end()  # it ends: it has waited longest
        finally:
            for wire in silent:
                wire.sock.close()


def test_handshakes_that_do_not_end_make_room_as_well(tmp_path: Path) -> None:
    with live_server(max_connections=8, tls=True, data_dir=tmp_path, **NEVER) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        try:
            assert server.get("/health").status_code == 200
            assert silent[0].recv(1) == b""
        finally:
            for each in silent:
                each.close()


def test_requests_in_progress_are_never_closed_for_others_and_one_too_many_gets_503(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    body = json.dumps({"inputs": "a fox"})
    with live_server(deployment, max_connections=16, **NEVER) as server, ExitStack() as stack:
        running = [stack.enter_context(Wire(server)) for _ in range(14)]
        for each in running:
            each.send(f"{POST}Content-Length: {len(body)}\r\n\r\n{body}")

        refused = [parse(stack.enter_context(Wire(server)).send(OPENAPI).read_to_end()) for _ in range(10)]
        assert server.get("/health/live").status_code == 200
        gate.open()

        assert {each.status for each in refused} == {503}
        assert {each.fields["connection"] for each in refused} == {"close"}
        assert all(int(each.fields["retry-after"]) >= 1 for each in refused)
        assert [each.read_answer().status for each in running] == [200] * 14
        assert server.get("/health").status_code == 200


SCRIPT = f"GET /app/{max(built_files(), key=lambda path: len(built_files()[path].content))} HTTP/1.1\r\n{HOST}\r\n"
BUNDLE = f"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\n{HOST}\r\n"


def nothing(_: Wire) -> None:
    """What a client does that has sent its request and takes nothing."""


def take_little(wire: Wire) -> None:
    wire.sock.recv(100)


def send_little(wire: Wire) -> None:
    wire.send(b" ")


SLUGGISH: dict[str, tuple[str, Callable[[Wire], None]]] = {
    "they take nothing of large answers": (BUNDLE * 30, nothing),
    "they take nothing of the page": (SCRIPT * NUM_ANSWERS, nothing),
    "they take nothing of many answers": (OPENAPI * NUM_ANSWERS, nothing),
    "they take a large answer slowly": (BUNDLE * 30, take_little),
    "they send nothing of a body": (f"{POST}Content-Length: 1000000\r\n\r\n", nothing),
    "they send a body slowly": (f"{POST}Content-Length: 1000000\r\n\r\n ", send_little),
}


@pytest.mark.parametrize(("sent", "go_on"), SLUGGISH.values(), ids=SLUGGISH)
def test_strangers_whose_requests_do_not_get_on_make_room_for_others(sent: str, go_on: Callable[[Wire], None]) -> None:
    def is_drawn(server: LiveServer) -> bool:
        for each in sluggish:
            with suppress(OSError):
                go_on(each)
        assert server.get("/health/live").status_code == 200
        return httpx.post(f"{server.url}/score", json={"inputs": "a fox"}, timeout=DEADLINE_S).status_code == 200

    with live_server(max_connections=16, **NEVER) as server, ExitStack() as stack:
        sluggish = [stack.enter_context(Wire(server, receive_buffer=4096)) for _ in range(15)]
        for each in sluggish:
            with suppress(OSError):
                each.send(sent)

        for _ in range(20):
            eventually(lambda: is_drawn(server))


def test_no_picture_in_progress_is_closed_for_strangers_who_come_again_and_again(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    body = json.dumps({"inputs": "a fox"})
    with live_server(deployment, max_connections=16, **NEVER) as server, ExitStack() as stack:
        running = [stack.enter_context(Wire(server)) for _ in range(8)]
        for each in running:
            each.send(f"{POST}Content-Length: {len(body)}\r\n\r\n{body}")
        eventually(lambda: server.count("safelight_running") > 0)
        for _ in range(60):
            taker = stack.enter_context(Wire(server, receive_buffer=4096))
            with suppress(OSError):
                taker.send(BUNDLE * 30)
        gate.open()

        assert [each.read_answer().status for each in running] == [200] * 8


def test_who_has_the_key_and_sends_slowly_is_answered_while_strangers_go() -> None:
    body = json.dumps({"inputs": "a fox"}).encode() + b" " * 30
    with live_server(api_key="k", max_connections=16, **NEVER) as server, ExitStack() as stack:
        known = stack.enter_context(Wire(server)).send(f"{POST}Content-Length: {len(body)}\r\n\r\n")
        for _ in range(14):
            with suppress(OSError):
                stack.enter_context(Wire(server, receive_buffer=4096)).send(BUNDLE * 30)
        for byte in body:
            known.send(bytes([byte]))
            eventually(lambda: server.get("/metrics").status_code == 200)

        assert known.read_answer().status == 200


def test_answers_of_the_docs_hold_no_files(patient: LiveServer) -> None:
    """Each would take a descriptor, of which there are few, for as long as its client takes."""
    with ExitStack() as stack:
        takers = [stack.enter_context(Wire(patient, receive_buffer=4096)) for _ in range(20)]
        for each in takers:
            each.send(BUNDLE * 5)
            assert each.sock.recv(15) == b"HTTP/1.1 200 OK"

        assert not [each for each in open_files() if "swagger" in each]


def open_files() -> list[str]:
    found = []
    for each in Path("/dev/fd").iterdir():
        with suppress(OSError):
            found.append(str(each.readlink()))
    return found


@pytest.mark.parametrize(
    "junk",
    ["x", "\r\n", GET, GET * 2000, "\x16\x03" * 200_000],
    ids=["a byte", "a line", "a request", "thousands", "noise"],
)
@pytest.mark.parametrize("fields", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"])
def test_what_comes_after_the_last_request_does_not_take_its_answer(
    gated: tuple[LiveServer, Gate], junk: str, fields: str
) -> None:
    server, gate = gated
    body = json.dumps({"inputs": "a fox"})
    head = f"POST /score {fields}\r\n{HOST}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with Wire(server) as wire:
        wire.send(head + body + junk)
        eventually(lambda: server.count("safelight_running") == 1)
        wire.send(junk)
        gate.allow(4)

        answer = parse(wire.read_to_end())

    assert answer.status == 200
    assert answer.body.startswith(b'"iVBORw0KGgo')  # PNG, in base64
    assert len(answer.body) == int(answer.fields["content-length"])
    assert answer.rest == b""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, Gate]]:
    """A server whose pictures take four steps, each of which is allowed by hand."""
    gate = Gate(tmp_path_factory.mktemp("gate") / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    with live_server(deployment, **NEVER) as server:
        yield server, gate
        gate.open()


HALF_CLOSED: dict[str, tuple[str, int]] = {
    "a picture": (f"{POST}Content-Length: 19\r\n\r\n" + '{"inputs": "a fox"}', 1),
    "a large file": (BUNDLE, 1),
    "many large files": (BUNDLE * 5, 5),
    "requests in turn": (GET * 100, 100),
    "a request and half of another": (GET + GET[:-2], 1),
    "a request of HTTP/1.0": ("GET /docs HTTP/1.0\r\n\r\n", 1),
}


@pytest.mark.parametrize(("sent", "num_answers"), HALF_CLOSED.values(), ids=HALF_CLOSED)
def test_a_client_that_has_sent_all_it_has_to_still_gets_its_answers(
    gated: tuple[LiveServer, Gate], sent: str, num_answers: int
) -> None:
    server, gate = gated
    with Wire(server) as wire:
        wire.send(sent)
        wire.sock.shutdown(socket.SHUT_WR)
        if "score" in sent:
            eventually(lambda: server.count("safelight_running") == 1)
            gate.allow(4)
        received = wire.read_to_end()

    assert received.count(b"HTTP/1.1 200 ") == num_answers
    if "score" not in sent:
        assert len(received) >= (1_500_000 if "bundle" in sent else 100) * num_answers


HELD: dict[str, str] = {
    "nothing": "",
    "half a header": GET[:-2],
    "an idle connection": GET,
    "half of a body": f"{POST}Content-Length: 100\r\n\r\n{{",
    "a body after its answer": f"POST /nowhere HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\n{{",
    "large answers that nobody takes": BUNDLE * 30,
    "answers that nobody takes": OPENAPI * NUM_ANSWERS,
}


@pytest.mark.parametrize("sent", HELD.values(), ids=HELD)
def test_the_server_stops_quietly_whatever_its_connections_hold(sent: str, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack, live_server(**NEVER) as server:
        for _ in range(5):
            stack.enter_context(Wire(server, receive_buffer=4096)).send(sent)
        assert server.get("/health").status_code == 200

    assert [each for each in caplog.records if each.levelname in ("ERROR", "CRITICAL") or each.exc_info] == []


def test_clients_that_reset_their_connections_at_any_point_leave_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    sent = [each for each, _ in (*SILENCES.values(), *EARLY.values())] + [OPENAPI * 20]
    with live_server(api_key="k", max_connections=8, **HASTE) as server:
        for content in sent * 20:
            with Wire(server) as wire:
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with suppress(ConnectionError):
                    wire.send(content)

        assert server.get("/health").status_code == 200
    assert [each for each in caplog.records if each.exc_info] == []


def test_what_comes_in_between_is_answered_while_hundreds_of_clients_connect_and_leave(patient: LiveServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        leaving = [pool.submit(lambda: Wire(patient).sock.close()) for _ in range(400)]

        assert [patient.get("/health").status_code for _ in range(20)] == [200] * 20
        assert all(each.exception() is None for each in leaving)
