"""What a request is called, wherever it is worked on: its id, and its place in a W3C trace.

Set where it comes in; whoever logs, sends it to a replica or tells a webhook of it reads it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
TRACE_HEADERS = (TRACEPARENT, TRACESTATE)
VERSION = "00"
"""The one that is spoken here, whatever the client speaks."""
MAX_TRACESTATE_CHARACTERS = 512
"""What has to be passed on, by https://www.w3.org/TR/trace-context/#tracestate-limits; more is dropped."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class RequestNames:
    """Travels to the replica with the request."""

    request_id: str = ""
    """`x-request-id`."""
    traceparent: str = ""
    """https://www.w3.org/TR/trace-context/#traceparent-header; empty: it is in no trace."""
    tracestate: str = ""

    @property
    def is_traced(self) -> bool:
        """Whether somebody keeps the trace (its flag `sampled`)."""
        return self.traceparent != "" and int(self.traceparent[-2:], 16) & 1 == 1

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]

    @property
    def trace_headers(self) -> tuple[tuple[str, str], ...]:
        """What another server is told with a request."""
        given = ((TRACEPARENT, self.traceparent), (TRACESTATE, self.traceparent and self.tracestate))
        return tuple((name, value) for name, value in given if value)


NO_NAMES = RequestNames()
_names: ContextVar[RequestNames] = ContextVar("names", default=NO_NAMES)


def current_names() -> RequestNames:
    """Of the request that this task works on; empty if it works on none."""
    return _names.get()


@contextmanager
def called(names: RequestNames) -> Iterator[None]:
    """Inside the block, this is what is worked on."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def together(names: Iterable[RequestNames]) -> RequestNames:
    """Of several requests that share a step."""
    distinct = [*dict.fromkeys(names)]
    if len(distinct) == 1:
        return distinct[0]
    return RequestNames(",".join(each.request_id for each in distinct if each.request_id))


def names_from(request_id: str, headers: Iterable[tuple[str, str]]) -> RequestNames:
    """As a client has sent them, names in lower case. What is no trace context is ignored, as its specification says.

    Of a state in several lines all are one, and of several parents none is believed.
    """
    lines = [each for each in headers if each[0] in TRACE_HEADERS]
    parents = [value for name, value in lines if name == TRACEPARENT]
    traceparent = parents[0] if len(parents) == 1 else ""
    tracestate = ",".join(value for name, value in lines if name == TRACESTATE and value)
    more = traceparent[55:]
    if not _TRACEPARENT.fullmatch(traceparent[:55]) or (more and (traceparent[:2] == "00" or more[0] != "-")):
        return RequestNames(request_id)
    is_short = len(tracestate) <= MAX_TRACESTATE_CHARACTERS and tracestate.isascii() and tracestate.isprintable()
    return RequestNames(request_id, f"{VERSION}{traceparent[2:55]}", tracestate if is_short else "")
