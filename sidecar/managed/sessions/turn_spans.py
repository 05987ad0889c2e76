"""The span of each running turn, and the trace context of each message that waits for its turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from sidecar.managed.turns.state import AcceptedEvent, TurnEnded
from sidecar.tracing import Span, Tracer, current_traceparent

_MAX_WAITING = 10_000
"""Contexts kept of queued messages; those of deleted sessions are never asked for again."""


class TurnTraces:
    """A turn belongs to the trace of the request that brought its message, however long that waited."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: dict[str, Span] = {}
        self._waiting: OrderedDict[str, str] = OrderedDict()

    def note_accepted(self, events: Sequence[AcceptedEvent]) -> None:
        """Remember the current request's context for the events that were queued."""
        traceparent = current_traceparent()
        if traceparent is None:
            return
        for event in events:
            if event.is_queued:
                self._waiting[event.id] = traceparent
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)

    def begin(self, session_id: str, event_id: str, model_ref: str) -> None:
        """A turn starts with that event, in the request that sent it or later."""
        parent = self._waiting.pop(event_id, None) or current_traceparent()
        self._finish(session_id, "superseded")  # one that waited for its client through a restart
        self._spans[session_id] = self._tracer.start(
            "turn", parent=parent, attributes={"session.id": session_id, "model": model_ref}
        )

    def end(self, ended: TurnEnded) -> None:
        """It got its terminal event."""
        span = self._spans.get(ended.session_id)
        if span is not None:
            span.note({"turn.outcome": ended.outcome, "turn.active_seconds": ended.active_seconds})
            self._finish(ended.session_id, ended.error or None)

    def traceparent_of(self, session_id: str) -> str | None:
        """Return what requests on behalf of the session's running turn carry."""
        span = self._spans.get(session_id)
        return span.traceparent if span is not None else None

    def _finish(self, session_id: str, error: str | None) -> None:
        span = self._spans.pop(session_id, None)
        if span is not None:
            span.end(error=error)
