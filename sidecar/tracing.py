"""Traces: which request caused which turn caused which model request.

A caller's W3C `traceparent` (https://www.w3.org/TR/trace-context/) is carried through the turn to the
gateway whether or not spans are recorded. Spans are recorded only with an endpoint configured and the
extra `otel` installed; nothing of OpenTelemetry is imported otherwise.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Literal, Protocol

import structlog

from sidecar.config import TracingSettings

TRACEPARENT = "traceparent"
SpanKind = Literal["server", "internal", "client"]

_VERSION_00 = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LATER_VERSION = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)

_log = structlog.get_logger(__name__)
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Span(Protocol):
    """Something that takes time. `end` once."""

    @property
    def traceparent(self) -> str | None:
        """What to hand on, so that what follows belongs to this span; None outside any trace."""

    def note(self, attributes: Mapping[str, str | int | float | bool]) -> None:
        """Add attributes that were not known at the start."""

    def end(self, *, error: str | None = None) -> None:
        """It is over; `error` says in one word why it failed."""


class Tracer(Protocol):
    """Makes spans."""

    def start(
        self,
        name: str,
        *,
        parent: str | None,
        kind: SpanKind = "internal",
        attributes: Mapping[str, str | int | float | bool] | None = None,
    ) -> Span:
        """Begin a span below `parent`, a `traceparent`; None begins a trace."""

    def close(self) -> None:
        """Send what is not sent yet. Blocks for some seconds at most."""


class _Passing:
    """Records nothing and hands on what it was given."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def note(self, attributes: Mapping[str, str | int | float | bool]) -> None:
        """Forget them."""

    def end(self, *, error: str | None = None) -> None:
        """Nothing was begun."""


class PassingTracer:
    """Carries trace contexts through and records nothing."""

    def start(
        self,
        name: str,  # noqa: ARG002  # the protocol's
        *,
        parent: str | None,
        kind: SpanKind = "internal",  # noqa: ARG002  # the protocol's
        attributes: Mapping[str, str | int | float | bool] | None = None,  # noqa: ARG002
    ) -> Span:
        """Return a span that is its parent."""
        return _Passing(parent)

    def close(self) -> None:
        """Nothing is kept."""


def make_tracer(settings: TracingSettings) -> Tracer:
    """Return the tracer for these settings; without an endpoint or the extra one that records nothing."""
    if settings.endpoint is None:
        return PassingTracer()
    try:
        module = importlib.import_module("sidecar.tracing_otel")
    except ImportError as error:
        _log.warning(
            "no spans are exported: install opencode-sidecar[otel]",
            endpoint=settings.endpoint,
            missing=error.name,
        )
        return PassingTracer()
    tracer: Tracer = module.OtelTracer(settings.endpoint)
    _log.info("spans are exported", endpoint=settings.endpoint)
    return tracer


def read_traceparent(value: str | None) -> str | None:
    """Return a caller's header if it is valid, else None: a broken one must not break the trace after us."""
    text = (value or "").strip()
    if _VERSION_00.fullmatch(text):
        return text
    # A later version may have more fields; what is known of it is handed on as version 00.
    if not text.startswith("00-") and _LATER_VERSION.fullmatch(text):
        return f"00-{text[3:55]}"
    return None


def trace_id_of(traceparent: str) -> str:
    """Return the id that all spans of the trace share."""
    return traceparent[3:35]


def current_traceparent() -> str | None:
    """Return the trace context of the request that is being handled."""
    return _current.get()


def set_current_traceparent(value: str | None) -> None:
    """Set it, for this task and those that it starts."""
    _current.set(value)
