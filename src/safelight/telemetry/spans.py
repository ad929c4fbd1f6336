"""Spans as the rest of the program knows them, without OpenTelemetry: that is imported only where an endpoint is set.

OTEL_EXPORTER_OTLP_ENDPOINT  ->  open_tracer  ->  a span for each request (`current_span`)  ->  its children
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Literal, Protocol, cast

from safelight.telemetry.names import RequestNames, called

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

AttributeValue = str | int | float | bool
Attributes = Mapping[str, AttributeValue]
"""Never a prompt, a key or a URL's query: traces are kept by others."""
SpanKind = Literal["internal", "server", "consumer", "client"]

logger = logging.getLogger(__name__)


class Span(Protocol):
    """Something that takes time. Times are nanoseconds since 1970; None: now."""

    def names_for(self, request_id: str) -> RequestNames:
        """What belongs to it is called so from here on."""

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        started_ns: int | None = None,
    ) -> Span: ...

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def note(self, event: str) -> None:
        """Something that happened at this moment."""

    def fail(self, error_type: str) -> None:
        """Why it failed, as a class of errors: messages may quote what was asked."""

    def end(self, *, ended_ns: int | None = None) -> None: ...


class Tracer(Protocol):
    """Where the spans of requests begin."""

    def start(self, name: str, names: RequestNames, kind: SpanKind, attributes: Attributes | None = None) -> Span:
        """A span in the trace that `names` tells of, or the first one of its own."""

    def close(self) -> None:
        """Send what was not sent yet, for a few seconds at most. Blocks."""


_span: ContextVar[Span | None] = ContextVar("span", default=None)


def current_span() -> Span | None:
    """Of the request that this task works on; None if nobody traces it."""
    return _span.get()


def note(event: str) -> None:
    """Something that happened to the request at this moment, for whoever traces it."""
    if (span := current_span()) is not None:
        span.note(event)


@contextmanager
def during(span: Span | None, names: RequestNames) -> Iterator[None]:
    """Inside the block, this is what is worked on."""
    token = _span.set(span)
    try:
        with called(names):
            yield
    finally:
        _span.reset(token)


def open_tracer(environment: Mapping[str, str]) -> Tracer | None:
    """What exports by OTLP, if the standard variables of OpenTelemetry name an endpoint; None: nothing is traced.

    What these variables ask for and is not here is said in the log, and nothing is traced: they are often set for many
    programs at once, and pictures are made without traces too.
    """
    if not any(environment.get(name, "").strip() for name in ENDPOINTS) or _is_off(environment):
        return None
    protocol = next(filter(None, (environment.get(name, "").strip() for name in PROTOCOLS)), PROTOCOL)
    if protocol != PROTOCOL:
        logger.warning("nothing is traced: %s is not %s, the protocol that is spoken here", PROTOCOLS[1], PROTOCOL)
        return None
    try:
        otlp = import_module("safelight.telemetry.otlp")
    except ModuleNotFoundError as error:
        logger.warning("nothing is traced: an OTLP endpoint is set, but %s is missing (the extra otel)", error.name)
        return None
    return cast(Tracer, otlp.create_tracer())


def _is_off(environment: Mapping[str, str]) -> bool:
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporters == "none":
        return True
    if exporters != "otlp":
        logger.warning("nothing is traced: OTEL_TRACES_EXPORTER may be otlp or none here")
        return True
    return False
