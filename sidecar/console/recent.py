"""The last turns, model requests, restarts and errors of this process: what the status page draws.

Bounded and in memory only: a restart begins anew. Metrics are what keeps a history.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from sidecar.gateway.relay import Relay
from sidecar.gateway.relay_events import RelayEvent
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.turns.state import TurnEnded
from sidecar.model_requests import ModelRequestEnded
from sidecar.opencode.child import Child, ChildExit

_MOST_TROUBLES = 50


@dataclass(frozen=True, slots=True)
class RecentTurn:
    """A turn that ended at `at` (seconds since the epoch); `error` is empty unless it failed."""

    at: float
    session_id: str
    outcome: str
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """A model request that ended. `first_byte_seconds` is None when there was none."""

    at: float
    model: str
    outcome: str
    seconds: float
    first_byte_seconds: float | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong, or a restart: one sentence. `session_id` is empty if it is of none."""

    at: float
    kind: str
    text: str
    session_id: str = ""


class Recent:
    """Hears of everything and keeps the latest."""

    def __init__(self, *, kept_turns: int) -> None:
        self.kept_turns = kept_turns
        self.turns: deque[RecentTurn] = deque(maxlen=kept_turns)
        self.requests: deque[RecentRequest] = deque(maxlen=kept_turns)
        self.troubles: deque[Trouble] = deque(maxlen=_MOST_TROUBLES)

    def listen(self, engine: SessionEngine, supervisor: Child, relay: Relay) -> None:
        """Note what happens from now on."""
        engine.on_turn_end(self.turn_ended)
        supervisor.on_exit(self.child_ended)
        relay.listen(self.model_request)

    def turn_ended(self, ended: TurnEnded) -> None:
        """A turn got its terminal event."""
        now = time.time()
        self.turns.append(
            RecentTurn(now, ended.session_id, ended.outcome, ended.error, ended.active_seconds)
        )
        if ended.outcome == "failed":
            text = f"failed with {ended.error or 'an unknown error'}"
            self.troubles.append(Trouble(now, "turn", text, ended.session_id))

    def model_request(self, event: RelayEvent) -> None:
        """The relay began or ended a model request."""
        if not isinstance(event, ModelRequestEnded):
            return
        now, failure = time.time(), event.failure
        outcome = failure.kind if failure else "ok"
        if outcome == "cancelled":
            return  # it says nothing about the model
        self.requests.append(
            RecentRequest(now, event.model, outcome, event.seconds, event.first_byte_seconds)
        )
        if failure is not None and outcome != "refusal":
            text = f"{event.model}: {failure.kind}: {failure.message}"
            self.troubles.append(Trouble(now, "model request", text))

    def child_ended(self, ended: ChildExit) -> None:
        """A process of opencode is over."""
        if ended.reason != "stopped":
            text = f"process {ended.boot} ended: {ended.reason} (exit code {ended.code})"
            self.troubles.append(Trouble(ended.at, "opencode", text))
