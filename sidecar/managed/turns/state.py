"""The state of one session: its row and the queue behind its turn.

This is the only file that assigns a session's status, its turn, and what the turn waits for. Each change
is a method that returns the events announcing it; the caller appends them in the same transaction in which
it stores the row. Pure: the time comes in as microseconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.managed.events.event import Draft
from sidecar.managed.turns import event_builders
from sidecar.managed.turns.outcome import Outcome
from sidecar.model_requests import Usage
from sidecar.wire.json_text import storable

Status = Literal["idle", "running", "rescheduling", "terminated"]
"""The API's `status` of a session."""
State = Literal["idle", "running", "rescheduling", "waiting", "terminated"]
"""The same, with the turns that wait for their client (the API shows those as idle) set apart."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    "idle": frozenset({"running", "terminated"}),
    "running": frozenset({"rescheduling", "waiting", "idle", "terminated"}),
    "rescheduling": frozenset({"running", "waiting", "idle", "terminated"}),
    "waiting": frozenset({"running", "idle", "terminated"}),
    "terminated": frozenset(),
}
"""The states that may follow each state."""

INTERRUPT = "user.interrupt"
SYSTEM = "system.message"
STALE = "is_child_stale"
"""Key in a session's body: its tools changed since opencode was last given them."""
RULES, CURRENT_RULES = "tool_rules", 2
"""Key in a session's body, and its value: what the rules that opencode was given are about. Before the 2 they
allowed opencode's own `webfetch`."""

PACKAGES = "packages"
"""Key in a session's body: packages by manager, as its environment had them when it was created."""

TurnOutcome = Literal["completed", "interrupted", "refused", "failed"]


class IllegalTransitionError(Exception):
    """A session was to enter a state that cannot follow its current one: a programming error."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn got its terminal event. `error` is the type of its `session.error`, or empty."""

    session_id: str
    outcome: TurnOutcome
    error: str
    active_seconds: float
    """Without the time in which it waited for the client."""


@dataclass(slots=True)
class TurnRecord:
    """What has to be known of an open turn after a crash.

    `message_id` is our id of the prompt in opencode. `is_repeated` says that it was sent a second time, so
    it is not sent again. `blocked` lists the ids of the events that wait for the client, in order.
    """

    user_event_id: str
    message_id: str
    is_repeated: bool = False
    blocked: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> TurnRecord:
        """Read the column's text. Earlier versions noted the first sending, and made no second."""
        stored = json.loads(text)
        if stored.pop("is_prompted", False):
            stored["is_repeated"] = True
        return cls(**stored)

    def stored(self) -> str:
        """Return the column's text."""
        return json.dumps(
            {
                "user_event_id": self.user_event_id,
                "message_id": self.message_id,
                "is_repeated": self.is_repeated,
                "blocked": self.blocked,
            }
        )


@dataclass(slots=True)
class SessionRecord:
    """One session. `body` holds agent, title, metadata, resources and vault_ids as the API shows them."""

    id: str
    agent_id: str
    agent_version: int
    environment_id: str
    thread_id: str
    model_ref: str
    status: Status
    created_at: str
    updated_at: str
    archived_at: str | None
    last_seq: int
    last_processed_us: int
    child_session_id: str | None
    usage: Usage
    active_us: int
    turn: TurnRecord | None
    body: dict[str, Any]
    running_since_us: int | None = None
    """Since when active time counts that is not in `active_us` yet. Not stored."""

    @property
    def agent(self) -> dict[str, Any]:
        """The agent's snapshot."""
        snapshot: dict[str, Any] = self.body["agent"]
        return snapshot

    @property
    def has_stale_tools(self) -> bool:
        """Whether opencode, if it knows the session, has rules for it that no longer hold."""
        return bool(self.body.get(STALE)) or self.body.get(RULES) != CURRENT_RULES

    @property
    def state(self) -> State:
        """The status, with the turns that wait for their client set apart."""
        return "waiting" if self.turn is not None and self.turn.blocked else self.status

    @property
    def is_waiting(self) -> bool:
        """Whether an open turn waits for the client."""
        return self.state == "waiting"

    # -- one method per change --------------------------------------------------------------------------

    def begin(self, event_id: str, message_id: str, now_us: int) -> list[Draft]:
        """A turn begins with the client's event of that id."""
        self._enter("running", now_us)
        self.turn = TurnRecord(event_id, message_id)
        return self._shown("running")

    def begin_again(self, event_id: str, message_id: str) -> None:
        """The open turn, whose child is gone, goes on with a new prompt after the client's last answer."""
        assert self.turn is not None
        assert self.status == "running"
        self.turn = TurnRecord(event_id, message_id)

    def note_repeated(self) -> None:
        """The prompt of the open turn is sent for the second and last time."""
        assert self.turn is not None
        self.turn.is_repeated = True

    def start_clock(self, now_us: int) -> None:
        """Active time counts from now: the turn goes on in a new process."""
        self.running_since_us = now_us

    def wait(self, event_ids: Sequence[str], now_us: int) -> list[Draft]:
        """The turn waits until the client has answered the events of these ids."""
        assert self.turn is not None
        assert event_ids
        self._enter("waiting", now_us)
        self.turn.blocked = list(event_ids)
        stop = {"stop_reason": {"type": "requires_action", "event_ids": list(event_ids)}}
        return event_builders.idle_drafts(self._thread, self.usage, self.active_us, stop)

    def take_answer(self, now_us: int) -> list[Draft]:
        """The client has answered at least one of the events that the turn waits for."""
        assert self.turn is not None
        if not self.is_waiting:
            return []  # answered before the turn had to wait
        self._enter("running", now_us)
        self.turn.blocked = []
        return self._shown("running")

    def reschedule(self, now_us: int) -> list[Draft]:
        """The model request failed and opencode waits before it tries again."""
        self._enter("rescheduling", now_us)
        return self._shown("rescheduled")

    def run(self, now_us: int) -> list[Draft]:
        """The wait for another try is over."""
        self._enter("running", now_us)
        return self._shown("running")

    def end(self, outcome: Outcome, now_us: int) -> list[Draft]:
        """The turn is over. Returns its `session.error`, if it has one, and its terminal event."""
        errors = [outcome.failure.draft()] if outcome.failure else []
        self._enter("terminated" if outcome.is_terminal else "idle", now_us)
        self.turn = None
        if outcome.is_terminal:
            return [*errors, *event_builders.terminated_drafts(self._thread)]
        stop: dict[str, Any] = {"stop_reason": dict(outcome.stop_reason)}
        if outcome.stop_details is not None:
            stop["stop_details"] = dict(outcome.stop_details)
        idle = event_builders.idle_drafts(self._thread, self.usage, self.active_us, stop)
        return [*errors, *idle]

    def terminate(self, archived_at: str, now_us: int) -> list[Draft]:
        """The session is archived, and a turn that waits in it is over."""
        if self.status != "terminated":
            self._enter("terminated", now_us)
        self.turn = None
        self.archived_at = archived_at
        return event_builders.terminated_drafts(self._thread)

    # -- helpers ------------------------------------------------------------------------------------------

    def _enter(self, state: State, now_us: int) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"session {self.id}: {self.state} -> {state}")
        self.status = "idle" if state == "waiting" else state
        is_active = state in {"running", "rescheduling"}
        if is_active and self.running_since_us is None:
            self.running_since_us = now_us
        elif not is_active and self.running_since_us is not None:
            self.active_us += max(0, now_us - self.running_since_us)
            self.running_since_us = None

    def _shown(self, name: Literal["running", "rescheduled"]) -> list[Draft]:
        return event_builders.status_drafts(self._thread, name)

    @property
    def _thread(self) -> dict[str, Any]:
        return {"session_thread_id": self.thread_id, "agent_name": self.agent["name"]}


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """A client's event that waits for its turn."""

    position: int
    id: str
    type: str
    text: str
    """Its other fields, a JSON object: what is stored."""

    @property
    def fields(self) -> dict[str, Any]:
        """The other fields."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    def as_json(self) -> str:
        """Return the event as lists show it, not processed yet, without reading the stored text."""
        known = json.dumps({"id": self.id, "type": self.type, "processed_at": None})
        others = storable(self.text).strip()
        return known if others == "{}" else f"{known[:-1]},{others[1:]}"


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """A client's event that is stored: in the log, or still in the queue."""

    id: str
    is_queued: bool
    text: str
    """The event as the API shows it, a JSON object."""
