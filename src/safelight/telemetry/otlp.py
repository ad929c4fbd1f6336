"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP: the one module that imports it.

The SDK reads its own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
"""

from __future__ import annotations

import threading
import uuid

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind as SdkSpanKind
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SdkTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from safelight import __version__
from safelight.telemetry.names import TRACEPARENT, TRACESTATE, RequestNames
from safelight.telemetry.spans import Attributes, SpanKind

CLOSE_TIMEOUT_S = 5.0
_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {
    "internal": SdkSpanKind.INTERNAL,
    "server": SdkSpanKind.SERVER,
    "consumer": SdkSpanKind.CONSUMER,
    "client": SdkSpanKind.CLIENT,
}


def create_tracer() -> OtlpTracer:
    """As the variables say."""
    ours = Resource(
        {"service.name": "safelight", "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    )
    resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtlpTracer(provider)


class OtlpTracer:
    """Owns the thread that sends."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("safelight", __version__)

    def start(self, name: str, names: RequestNames, kind: SpanKind, attributes: Attributes | None = None) -> OtlpSpan:
        context = _PROPAGATOR.extract(dict(names.trace_headers))
        return OtlpSpan(self._tracer, self._tracer.start_span(name, context, _KINDS[kind], attributes))

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)


class OtlpSpan:
    """A span of the SDK."""

    def __init__(self, tracer: SdkTracer, span: SdkSpan) -> None:
        self._tracer = tracer
        self._span = span

    def names_for(self, request_id: str) -> RequestNames:
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(self._span))
        return RequestNames(request_id, headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""))

    def child(self, name: str, attributes: Attributes | None = None, *, started_ns: int | None = None) -> OtlpSpan:
        context = set_span_in_context(self._span)
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=started_ns)
        return OtlpSpan(self._tracer, span)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def note(self, event: str) -> None:
        self._span.add_event(event)

    def fail(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, *, ended_ns: int | None = None) -> None:
        self._span.end(ended_ns)
