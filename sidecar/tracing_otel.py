"""Spans through OpenTelemetry. Imported by `tracing` only, when an endpoint is configured.

The SDK reads its other variables itself: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`,
`OTEL_TRACES_SAMPLER` and so on. Export happens in a thread of the SDK's; a collector that is away costs
spans, never a request.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSdkSpan
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar import __version__
from sidecar.tracing import TRACEPARENT, Span, SpanKind

_KINDS: Mapping[SpanKind, OtelKind] = {
    "server": OtelKind.SERVER,
    "internal": OtelKind.INTERNAL,
    "client": OtelKind.CLIENT,
}
_FLUSH_MILLISECONDS = 3000
_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """Records spans and exports them in batches."""

    def __init__(self, endpoint: str) -> None:
        ours = Resource({"service.name": "opencode-sidecar", "service.version": __version__})
        # The environment's word (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) wins over ours.
        resource = ours.merge(OTELResourceDetector().detect())
        # shutdown is ours to call: at exit it would be too late for the loop and too slow for the user.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"))
        )
        self._tracer = self._provider.get_tracer("opencode-sidecar", __version__)

    def start(
        self,
        name: str,
        *,
        parent: str | None,
        kind: SpanKind = "internal",
        attributes: Mapping[str, str | int | float | bool] | None = None,
    ) -> Span:
        """Begin a span."""
        # An explicit empty context: the parent span is `parent` alone, not what is current in this task.
        carrier = {TRACEPARENT: parent} if parent else {}
        context = _propagator.extract(carrier, Context())
        span = self._tracer.start_span(name, context, _KINDS[kind], attributes=attributes)
        return _OtelSpan(span)

    def close(self) -> None:
        """Send what is waiting."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: OtelSdkSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        )

    def note(self, attributes: Mapping[str, str | int | float | bool]) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def end(self, *, error: str | None = None) -> None:
        """End it."""
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()
