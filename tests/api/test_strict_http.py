"""Requests that two parsers could read differently, through a real server: refused in words, and closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live_server import LiveServer, live_server
from tests.raw_http import Wire, parse

HOST = "Host: x\r\n"
SMUGGLED = f"GET /health HTTP/1.1\r\n{HOST}\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as server:
        yield server


def post(fields: str, body: str = "") -> str:
    return f"POST /score HTTP/1.1\r\n{HOST}{fields}\r\n\r\n{body}"


CHUNKED = "Transfer-Encoding: chunked"
FOX, END = '10\r\n{"inputs": "fox"\r\n', "1\r\n}\r\n0\r\n\r\n"

REFUSED: dict[str, tuple[str, int]] = {
    "a length and chunks": (post(f"Content-Length: 5\r\n{CHUNKED}", "0\r\n\r\n"), 400),
    "chunks and a length": (post(f"{CHUNKED}\r\nContent-Length: 5", "0\r\n\r\n"), 400),
    "chunks and a length of nothing": (post(f"{CHUNKED}\r\nContent-Length: 0", "0\r\n\r\n"), 400),
    "a length and chunks in other letters": (
        post("content-length:5\r\nTRANSFER-ENCODING:\tCHUNKED ", "0\r\n\r\n"),
        400,
    ),
    "a length twice": (post("Content-Length: 2\r\nContent-Length: 3", "{}"), 400),
    "the same length twice": (post("Content-Length: 2\r\nContent-Length: 2", "{}"), 400),
    "a list of lengths": (post("Content-Length: 2, 2", "{}"), 400),
    "a signed length": (post("Content-Length: +2", "{}"), 400),
    "a negative length": (post("Content-Length: -1"), 400),
    "a length in hexadecimal": (post("Content-Length: 0x2", "{}"), 400),
    "a length of many digits": (post("Content-Length: " + "9" * 4000), 400),
    "a length that is empty": (post("Content-Length:"), 400),
    "the identity coding": (post("Transfer-Encoding: identity", "{}"), 400),
    "an unknown coding": (post("Transfer-Encoding: xchunked", "0\r\n\r\n"), 400),
    "a coding before chunked": (post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 400),
    "a coding after chunked": (post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), 400),
    "chunked twice": (post(f"{CHUNKED}\r\n{CHUNKED}", "0\r\n\r\n"), 400),
    "chunked in quotes": (post('Transfer-Encoding: "chunked"', "0\r\n\r\n"), 400),
    "chunked in HTTP/1.0": (f"POST /score HTTP/1.0\r\n{HOST}{CHUNKED}\r\n\r\n0\r\n\r\n", 400),
    "a blank before the colon": (post("Content-Length : 2", "{}"), 400),
    "a blank before the colon of chunked": (post("Transfer-Encoding : chunked", "0\r\n\r\n"), 400),
    "a continued line": (post("X-Note: a\r\n b"), 400),
    "a coding in a continued line": (post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"), 400),
    "a line that ends in LF": (f"GET /health HTTP/1.1\r\nX-Note: a\n{HOST}\r\n", 400),
    "only LF": ("GET /health HTTP/1.1\nHost: x\n\n", 400),
    "a head that ends in LF": (f"GET /health HTTP/1.1\r\n{HOST}\n", 400),
    "a CR in a field": (f"GET /health HTTP/1.1\r\n{HOST}X-Note: a\rb: c\r\n\r\n", 400),
    "a NUL in a field": (f"GET /health HTTP/1.1\r\n{HOST}X-Note: a\0\r\n\r\n", 400),
    "a field without a name": (f"GET /health HTTP/1.1\r\n{HOST}: a\r\n\r\n", 400),
    "a field without a colon": (f"GET /health HTTP/1.1\r\n{HOST}nonsense\r\n\r\n", 400),
    "no Host": ("GET /health HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (f"GET /health HTTP/1.1\r\n{HOST}Host: y\r\n\r\n", 400),
    "a Host with a path": ("GET /health HTTP/1.1\r\nHost: x/../y\r\n\r\n", 400),
    "a Host with a user": ("GET /health HTTP/1.1\r\nHost: x@y\r\n\r\n", 400),
    "a Host with a blank": ("GET /health HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    "a Host with a list": ("GET /health HTTP/1.1\r\nHost: x:1:2\r\n\r\n", 400),
    "a Host in another script": ("GET /health HTTP/1.1\r\nHost: bücher\r\n\r\n", 400),
    "HTTP/2": (f"GET /health HTTP/2.0\r\n{HOST}\r\n", 505),
    "HTTP/2 without a Host": ("GET /health HTTP/2.0\r\n\r\n", 505),
    "the preface of HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/2 in one digit": (f"GET /health HTTP/2\r\n{HOST}\r\n", 400),
    "HTTP/1.7": (f"GET /health HTTP/1.7\r\n{HOST}\r\n", 505),
    "HTTP/0.9 by name": ("GET /health HTTP/0.9\r\n\r\n", 505),
    "HTTP/0.9": ("GET /health\r\n\r\n", 400),
    "another version with HEAD": (f"HEAD /health HTTP/3.0\r\n{HOST}\r\n", 505),
    "another protocol": (f"GET /health RTSP/1.0\r\n{HOST}\r\n", 400),
    "http in small letters": (f"GET /health http/1.1\r\n{HOST}\r\n", 400),
    "two blanks in the request line": (f"GET  /health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a method with a colon": (f"GE:T /health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a fragment": (f"GET /health#a HTTP/1.1\r\n{HOST}\r\n", 400),
    "a fragment in a URL": (f"GET http://x/health#a HTTP/1.1\r\n{HOST}\r\n", 400),
    "a tunnel": (f"CONNECT x:443 HTTP/1.1\r\n{HOST}\r\n", 400),
    "a relative path": (f"GET health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a star": (f"GET * HTTP/1.1\r\n{HOST}\r\n", 400),
    "a URL of another scheme": (f"GET ftp://x/health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a URL without a host": (f"GET http:///health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a URL with a user": (f"GET http://a:b@x/health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a URL with a bad host": (f"GET http://x:y/health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a URL without a Host beside it": ("GET http://x/health HTTP/1.1\r\n\r\n", 400),
    "a long request line": (f"GET /{'a' * 200_000} HTTP/1.1\r\n{HOST}\r\n", 414),
    "a request line without end": ("GET /" + "a" * 200_000, 414),
    "a long field": (f"GET /health HTTP/1.1\r\n{HOST}X-Note: {'a' * 200_000}\r\n\r\n", 431),
    "a field without end": (f"GET /health HTTP/1.1\r\n{HOST}X-Note: {'a' * 200_000}", 431),
    "many fields": (f"GET /health HTTP/1.1\r\n{HOST}" + "X: a\r\n" * 1000 + "\r\n", 431),
    "a chunk size that is none": (post(CHUNKED, "zz\r\n{}\r\n0\r\n\r\n"), 400),
    "a negative chunk size": (post(CHUNKED, "-2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk size with a prefix": (post(CHUNKED, "0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk size of many digits": (post(CHUNKED, "0" * 4000 + "2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk size without end": (post(CHUNKED, "2;" + "a" * 200_000), 431),
    "a chunk that is longer than its size": (post(CHUNKED, "1\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk size that ends in LF": (post(CHUNKED, "2\n{}\r\n0\r\n\r\n"), 400),
    "a trailer without a colon": (post(CHUNKED, "2\r\n{}\r\n0\r\nnonsense\r\n\r\n"), 400),
    "a trailer without end": (post(CHUNKED, "2\r\n{}\r\n0\r\nX: " + "a" * 200_000), 431),
    "a body in tiny chunks": (post(CHUNKED, FOX + "1\r\n \r\n" * 100_000 + END), 400),
    "a body in short chunks": (post(CHUNKED, FOX + ("ff\r\n" + " " * 255 + "\r\n") * 2000 + END), 400),
    "a long chunk and then tiny ones": (
        post(CHUNKED, "80000\r\n" + " " * 0x80000 + "\r\n" + "1\r\n \r\n" * 2000 + END),
        400,
    ),
    "two empty lines before the request line": (f"\r\n\r\nGET /health HTTP/1.1\r\n{HOST}\r\n", 400),
    "a bare LF before the request line": (f"\nGET /health HTTP/1.1\r\n{HOST}\r\n", 400),
    "the hello of TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "nonsense": ("\x00" * 100, 400),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_two_parsers_could_read_differently_is_refused_and_nothing_after_it_is_read(
    server: LiveServer, request_: str, status: int
) -> None:
    with Wire(server) as wire:
        answer = parse(wire.send(request_ + SMUGGLED).read_to_end())

    assert answer.status == status
    assert answer.fields["connection"] == "close"
    assert answer.body.strip()
    assert not any(each in answer.body for each in (b"bytearray", b"b'", b'b"', b"\\x", b"{"))  # as Python writes it
    assert answer.rest == b""


@pytest.mark.parametrize(
    "case", ["a length and chunks", "only LF", "a continued line", "HTTP/2", "a chunk size that is none"]
)
def test_it_is_refused_as_well_when_it_comes_byte_by_byte(server: LiveServer, case: str) -> None:
    request, status = REFUSED[case]
    with Wire(server) as wire:
        for byte in request.encode():
            wire.send(bytes([byte]))

        assert parse(wire.read_to_end()).status == status


SERVED: dict[str, tuple[str, int]] = {
    "a URL": (f"GET http://y:80/health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "a URL in capitals": (f"GET HTTP://Y/health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "a URL of https": (f"GET https://y/health?a=b HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "a URL without a path": (f"GET http://y HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "a URL with a query alone": (f"GET http://y?a=b HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "a URL of an IPv6 address": (f"GET http://[::1]:80/health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "HTTP/1.0": ("GET /health HTTP/1.0\r\n\r\n", 200),
    "an empty Host": ("GET /health HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 200),
    "a question about the server": (f"OPTIONS * HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 404),
    "an empty line first": (f"\r\nGET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 200),
    "chunks": (
        post(f"{CHUNKED}\r\nConnection: close", '6\r\n{"inpu\r\na;a=b\r\nts": "fox"\r\n1\r\n}\r\n0\r\n\r\n'),
        200,
    ),
    "chunks with a trailer": (
        post(f"{CHUNKED}\r\nConnection: close", '10\r\n{"inputs": "fox"\r\n1\r\n}\r\n0\r\nX: a\r\n\r\n'),
        200,
    ),
    "a thousand tiny chunks": (
        post(
            f"{CHUNKED}\r\nConnection: close",
            FOX + "1\r\n \r\n" * 1000 + END,
        ),
        200,
    ),
    "thousands of chunks": (
        post(
            f"{CHUNKED}\r\nConnection: close",
            FOX + ("200\r\n" + " " * 512 + "\r\n") * 2000 + END,
        ),
        200,
    ),
    "an upgrade": (f"GET /health HTTP/1.1\r\n{HOST}Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n", 200),
    "many fields": (f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n" + "X: a\r\n" * 100 + "\r\n", 200),
    "a long field": (f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\nX: {'a' * 30_000}\r\n\r\n", 200),
}


@pytest.mark.parametrize(("request_", "status"), SERVED.values(), ids=SERVED)
def test_what_is_unusual_and_right_is_served(server: LiveServer, request_: str, status: int) -> None:
    with Wire(server) as wire:
        assert parse(wire.send(request_).read_to_end()).status == status


def test_an_empty_line_before_each_request_is_skipped_in_whichever_pieces_it_comes(server: LiveServer) -> None:
    with Wire(server) as wire:
        for piece in ("\r", f"\n{SMUGGLED}", f"\r\n{SMUGGLED}", "\r\n", SMUGGLED[:-1], "\n\r", "\n", SMUGGLED):
            wire.send(piece)
        wire.send(f"GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")

        assert wire.read_to_end().count(b"HTTP/1.1 200 ") == 5


def test_the_host_of_a_url_counts_and_not_that_of_the_field(server: LiveServer) -> None:
    body = '{"prompt": "a fox", "response_format": "url"}'
    head = f"POST http://localhost:81/v1/images/generations HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n"
    with Wire(server) as wire:
        answer = wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}").read_answer()

    assert b"http://localhost:81/" in answer.body


def test_requests_that_come_all_at_once_are_answered_in_turn_until_one_is_refused(server: LiveServer) -> None:
    with Wire(server) as wire:
        received = wire.send(SMUGGLED * 3 + f"GET /health HTTP/2.0\r\n{HOST}\r\n" + SMUGGLED).read_to_end()

    assert (received.count(b"HTTP/1.1 200 "), received.count(b"HTTP/1.1 505 ")) == (3, 1)
