"""The model requests of a turn, as its events show them: one after the other, each with a start and an end.

The relay's report of a start or an end may overtake opencode's events, so both are noted first and shown
later, see `sidecar.managed.turns.translator`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.managed.events.event import Draft
from sidecar.managed.turns.event_builders import Output, request_end_draft, step_usage
from sidecar.model_requests import Usage


@dataclass(slots=True)
class _Span:
    event_id: str
    request_id: str | None
    """The relay's; None for a request that it does not report."""
    ended: tuple[bool | None, Usage | None] | None = None
    """Whether it failed, and its tokens, where they are known; None while it is under way."""
    calls: int = 0
    """How many calls its answer has, at the least, as the relay counted them."""
    calls_seen: int = 0
    """How many of them opencode has reported."""
    is_given_up: bool = False
    """opencode has said that it tries again."""

    @property
    def has_failed(self) -> bool:
        return self.ended is not None and self.ended[0] is True


class RequestSpans:
    """At most one request is shown as open; the others that were reported wait for its end.

    Methods with `out` add the events that they lead to. `new_id` makes ids of events.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._open: _Span | None = None
        self._waiting: deque[_Span] = deque()
        self.is_reported = False
        """Whether the relay has reported any request."""
        self.has_started = False
        """Whether a start was shown."""

    @property
    def is_open(self) -> bool:
        """Whether a request was shown to start, and not to end."""
        return self._open is not None

    @property
    def has_waiting(self) -> bool:
        """Whether requests were reported that are not shown yet."""
        return bool(self._waiting)

    @property
    def is_answered(self) -> bool:
        """Whether the model has said all it will say before tools answer."""
        span = self._open
        return span is None or span.request_id is None or span.ended is not None

    @property
    def has_ended(self) -> bool:
        """Whether the open request is over, though not shown to be."""
        return self._open is not None and self._open.ended is not None

    @property
    def has_failed(self) -> bool:
        """Whether the open request is over and has failed."""
        return self._open is not None and self._open.has_failed

    @property
    def is_given_up(self) -> bool:
        """Whether opencode has given the open request up."""
        return self._open is not None and self._open.is_given_up

    @property
    def is_missing_calls(self) -> bool:
        """Whether the open request made calls of which opencode has not reported yet."""
        return self._open is not None and self._open.calls_seen < self._open.calls

    def note_start(self, request_id: str) -> None:
        """The relay has forwarded a request to the gateway."""
        self.is_reported = True
        self._waiting.append(_Span(self._new_id(), request_id))

    def note_end(
        self, request_id: str, *, is_error: bool | None, usage: Usage | None, calls: int
    ) -> None:
        """A request ended, with so many calls in its answer."""
        for span in (self._open, *self._waiting):
            if span is not None and span.request_id == request_id:
                span.ended, span.calls = (is_error, usage), calls

    def note_step_end(self, part: Mapping[str, Any]) -> None:
        """opencode has reported the open request's end; its tokens count where the relay knew none.

        `part` is its `step-finish` part.
        """
        if self._open is not None:
            is_error, usage = self._open.ended or (False, None)
            self._open.ended = (is_error, usage or step_usage(part))

    def note_given_up(self) -> None:
        """opencode says that the open request failed and that it tries again."""
        if self._open is not None:
            self._open.is_given_up = True
            if self._open.request_id is None:
                self._open.ended = (True, Usage())

    def note_call(self) -> None:
        """opencode has reported a call."""
        if self._open is not None:
            self._open.calls_seen += 1

    def start_next(self, out: Output) -> None:
        """Show the start of the next request, unless one is open."""
        if self._waiting and self._open is None:
            self._start(out, self._waiting.popleft())

    def start_unreported(self, out: Output) -> None:
        """Show the start of a request that only opencode reports.

        Either the relay does not see it, or it is out of step with opencode and has counted the tokens.
        """
        counted = (False, Usage()) if self.is_reported else None
        self._start(out, _Span(self._new_id(), None, counted))

    def end(self, out: Output, *, is_cut: bool = False) -> None:
        """Show the end of the open request, if there is one.

        Of one that was cut before anything was known about its end it is not said whether it failed.
        """
        span, self._open = self._open, None
        if span is None:
            return
        is_error, usage = span.ended or ((None if is_cut else False), None)
        used = usage or Usage()
        out.used.append(used)
        out.drafts.append(request_end_draft(span.event_id, is_error=is_error, usage=used))

    def _start(self, out: Output, span: _Span) -> None:
        self._open = span
        self.has_started = True
        out.drafts.append(Draft("span.model_request_start", {}, span.event_id))
