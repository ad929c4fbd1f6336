"""HTTP/1.1 as two parsers cannot read it differently: what h11 still lets through is refused (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import h11

MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 128
MAX_SHORT_CHUNKS = 1024
MIN_CHUNK_BYTES = 256
"""Of every other chunk of a body: each takes its time, however short it is."""

_LOOSE_LINE = re.compile(rb"(?<!\r)\n|\r\n[ \t]")
"""A line that ends in LF alone (RFC 9112, section 2.2), or goes on in the next one (section 5.2)."""
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ABSOLUTE_FORM = re.compile(rb"https?://(?P<host>[^/?@]+)(?P<path>/[^?]*)?(?P<query>\?.*)?", re.IGNORECASE)
_HOST = re.compile(rb"(\[[0-9a-f:.%]+\]|[a-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?", re.IGNORECASE)


class StrictConnection(h11.Connection):
    """Whatever `next_event` raises says in `error_status_hint` what to answer; `refusal` keeps it."""

    def __init__(self, *, is_last_answer: Callable[[], bool] = lambda: False) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        self._num_short_chunks = self._num_bytes = 0
        self._has_skipped_line = False
        self._is_last_answer = is_last_answer

    @property
    def has_unread(self) -> bool:
        """Whether something has come that is no part of a message yet; `trailing_data` would copy it."""
        return bool(self._receive_buffer)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            if self.their_state is h11.IDLE and self.has_unread:
                received = self._without_empty_line(self.trailing_data[0])
                if received in (b"", b"\r"):
                    return h11.NEED_DATA
                check_head(received)
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._num_short_chunks, self._has_skipped_line = 0, False
                return in_origin_form(event)
            if isinstance(event, h11.Data):
                self._check_chunks(event)
            return event
        except Refusal as error:
            self.refusal = error
            raise
        except h11.RemoteProtocolError as error:
            self.refusal = Refusal(_in_plain_words(str(error)), error_status_hint=error.error_status_hint)
            raise

    def _without_empty_line(self, received: bytes) -> bytes:
        """One before the request line, as some clients send it, is skipped (RFC 9112, section 2.2)."""
        if self._has_skipped_line or not received.startswith(b"\r\n"):
            return received
        self._has_skipped_line = True
        self._receive_buffer.maybe_extract_at_most(2)
        return received[2:]

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """What `send` calls. An answer to a client that is still sending says that the connection ends with it."""
        is_last = isinstance(event, h11.Response) and (self.their_state is h11.SEND_BODY or self._is_last_answer())
        if isinstance(event, h11.Response) and is_last:
            headers = [*event.headers, (b"connection", b"close")]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        return super().send_with_data_passthrough(event)

    def _check_chunks(self, data: h11.Data) -> None:
        """Nothing else is done while they are read."""
        self._num_bytes = len(data.data) + (0 if data.chunk_start else self._num_bytes)
        self._num_short_chunks += data.chunk_end and self._num_bytes < MIN_CHUNK_BYTES
        if self._num_short_chunks > MAX_SHORT_CHUNKS:
            raise _refusal(
                f"the body has more than {MAX_SHORT_CHUNKS} chunks of less than {MIN_CHUNK_BYTES} bytes; send longer "
                "ones"
            )


def check_head(received: bytes) -> None:
    """Look at a request's head, complete or not, before h11 tidies it up. Raises h11.RemoteProtocolError."""
    head, end, _ = received.partition(b"\r\n\r\n")
    if len(head) > MAX_HEAD_BYTES and b"\r\n" not in head[:MAX_HEAD_BYTES]:
        raise _refusal(f"the request line is longer than {MAX_HEAD_BYTES} bytes", 414)
    if len(head) > MAX_HEAD_BYTES or head.count(b"\r\n") > MAX_FIELDS:
        raise _refusal(f"the header has more than {MAX_HEAD_BYTES} bytes or {MAX_FIELDS} fields", 431)
    if not end and b"\n\n" not in head and b"\n\r\n" not in head:
        return  # it goes on, for h11 as well; looking closer each time that a byte comes would cost too much
    if _LOOSE_LINE.search(head):
        raise _refusal("each line of the header must end in CRLF, and none may be continued")
    _check_framing(head.split(b"\r\n")[1:])


def _check_framing(fields: Sequence[bytes]) -> None:
    """One way to tell where the body ends, or none (RFC 9112, section 6)."""
    lengths, codings = _values(fields, b"content-length"), _values(fields, b"transfer-encoding")
    if lengths and codings:
        raise _refusal("Content-Length and Transfer-Encoding contradict each other; send one of them")
    if len(lengths) > 1 or any(_LENGTH.fullmatch(each) is None for each in lengths):
        raise _refusal("Content-Length must be one number, and given once")
    if codings not in ([], [b"chunked"]):
        raise _refusal("Transfer-Encoding must be `chunked`, and given once")


def _values(fields: Sequence[bytes], name: bytes) -> list[bytes]:
    parts = (field.partition(b":") for field in fields)
    return [value.strip(b" \t").lower() for each, _, value in parts if each.strip().lower() == name]


def in_origin_form(request: h11.Request) -> h11.Request:
    """The request with a path as its target; the host of a URL there counts, not the field's (RFC 9112, section 3.2.2).

    Raises h11.RemoteProtocolError.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        raise _refusal("only HTTP/1.1 and HTTP/1.0 are served", 505)
    hosts = [value for name, value in request.headers if name == b"host"]
    if request.http_version == b"1.0" and any(name == b"transfer-encoding" for name, _ in request.headers):
        raise _refusal("HTTP/1.0 has no Transfer-Encoding; send a Content-Length")
    target, url = request.target, None
    if not target.startswith(b"/") and (request.method, target) != (b"OPTIONS", b"*"):
        url = _ABSOLUTE_FORM.fullmatch(target)
        if url is None:
            raise _refusal("the request's target must be a path, or a URL of http or https")
        hosts, target = [url["host"]], (url["path"] or b"/") + (url["query"] or b"")
    if b"#" in target or any(_HOST.fullmatch(each) is None for each in hosts):
        raise _refusal("the request's target or its Host is no part of a URL")
    if url is None:
        return request
    headers = [(b"host", hosts[0]), *((name, value) for name, value in request.headers if name != b"host")]
    return h11.Request(method=request.method, headers=headers, target=target, http_version=request.http_version)


class Refusal(h11.RemoteProtocolError):
    """Its text is for the client."""


def _refusal(message: str, status: int = 400) -> Refusal:
    return Refusal(message, error_status_hint=status)


_PLAIN_WORDS = {
    "illegal request line": "the request line must be METHOD, one blank, the path, one blank, HTTP/1.1",
    "no request line": "there are empty lines where the request line should be",
    "illegal header line": "a line of the header is no field; it must be `Name: value`, in printable characters",
    "illegal chunk": "the length of a chunk is no hexadecimal number",
    "malformed chunk": "a chunk does not end where its length says",
    "Missing mandatory Host": "the header has no Host; HTTP/1.1 needs one",
    "Found multiple Host": "the header has more than one Host; send one",
    "Receive buffer too long": "a line of the body's framing, or its trailer, is too long",
}
"""For how h11 words what it refuses: partly as Python writes it, and with what was sent."""


def _in_plain_words(message: str) -> str:
    return next((words for start, words in _PLAIN_WORDS.items() if message.startswith(start)), "this is no HTTP/1.1")
