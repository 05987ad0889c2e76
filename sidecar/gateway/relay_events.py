"""What the relay tells its listeners about each model request of the child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from sidecar.gateway.usage import TokenUsage

FailureKind = Literal[
    "overloaded",
    "rate_limited",
    "authentication",
    "billing",
    "refusal",
    "failed",
    "timeout",
    "not_sse",
    "cancelled",
]
"""`cancelled`: the child went away first, as it does when a turn is aborted. `refusal`: the model
answered, with a refusal."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model request failed; the message is cut and carries no key."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class ModelRequestStarted:
    """The child asked for a completion. `started_at` is seconds since the epoch.

    `child_session_id` and `parent_session_id` (sub-agents) are opencode's own session ids, from
    `x-session-id` and `x-parent-session-id`; empty when the child sent none.
    """

    request_id: str
    child_session_id: str
    parent_session_id: str
    model: str
    started_at: float


@dataclass(frozen=True, slots=True)
class ModelRequestEnded:
    """The end of one. `status` is what the child was answered, 0 when nothing.

    `first_byte_seconds` is the time to the first body byte, None when there was none.
    """

    request_id: str
    child_session_id: str
    parent_session_id: str
    model: str
    status: int
    usage: TokenUsage | None
    failure: Failure | None
    started_at: float
    first_byte_seconds: float | None
    seconds: float


RelayEvent = ModelRequestStarted | ModelRequestEnded
Listener = Callable[[RelayEvent], None]


@dataclass(slots=True)
class Listeners:
    """Calls everyone in order; an exception of one is logged and harms neither stream nor others."""

    _all: list[Listener] = field(default_factory=list)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the answer removes it and may be called twice."""
        self._all.append(listener)

        def remove() -> None:
            if listener in self._all:
                self._all.remove(listener)

        return remove

    def emit(self, event: RelayEvent) -> None:
        """Tell everyone soon, in order: the bytes that wait to be passed on go first."""
        asyncio.get_running_loop().call_soon(self._tell, event)

    def _tell(self, event: RelayEvent) -> None:
        for listener in tuple(self._all):
            try:
                listener(event)
            except Exception as error:  # a listener must not break the stream
                _log.error("relay listener failed", event_kind=type(event).__name__, exc_info=error)
