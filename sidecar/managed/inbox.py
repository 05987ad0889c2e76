"""Client events arriving at a session: validated as a whole, then accepted as a whole.

Runs under the session's lock, so what is decided here is still true when it is committed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import ConflictError, InvalidRequestError, RateLimitedError
from sidecar.ids import new_id
from sidecar.managed.actor import INTERRUPT, SessionActor
from sidecar.managed.event_log import Draft, Event
from sidecar.managed.records import QueuedEvent
from sidecar.managed.turn import Confirmation, Interrupt
from sidecar.wire.managed import Body
from sidecar.wire.sessions import (
    ClientEvent,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
)


@dataclass(slots=True)
class Acceptance:
    """What a batch of events will do."""

    drafts: list[Draft] = field(default_factory=list)
    queued: list[QueuedEvent] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    starting: list[dict[str, Any]] | None = None
    confirmations: list[Confirmation] = field(default_factory=list)
    is_interrupt: bool = False


async def accept(
    actor: SessionActor, events: Sequence[ClientEvent], *, max_queued: int
) -> list[dict[str, Any]]:
    """Accept a batch: persist it, set things going, return the events as the API answers them.

    Raises InvalidRequestError, ConflictError (archived session) or RateLimitedError (queue full), and
    then nothing was accepted.
    """
    async with actor.lock:
        acceptance = _plan(actor, events, max_queued)
        appended = await actor.commit(
            acceptance.drafts, also=_insert_queued(actor.record.id, acceptance.queued)
        )
        actor.queue += acceptance.queued
        if acceptance.starting is not None:
            actor.launch(acceptance.starting)
        if actor.turn is not None:
            for confirmation in acceptance.confirmations:
                actor.turn.put(confirmation)
            if acceptance.is_interrupt:
                actor.turn.put(Interrupt())
        return _answers(acceptance, appended)


def _plan(actor: SessionActor, events: Sequence[ClientEvent], max_queued: int) -> Acceptance:
    if actor.record.archived_at is not None or actor.record.status == "terminated":
        raise ConflictError(f"session {actor.record.id} has ended and takes no more events")
    plan = Acceptance()
    for number, event in enumerate(events):
        _check(actor, plan, event, f"events.{number}")
    if len(actor.queue) + len(plan.queued) > max_queued:
        raise RateLimitedError(
            f"events: {max_queued} events wait on this session already; wait for it to become idle",
            retry_after_seconds=5,
        )
    waiting = actor.turn.waiting_tools if actor.turn is not None else []
    answered = {confirmation.tool_use_id for confirmation in plan.confirmations}
    unknown = answered - {tool.event_id for tool in waiting if tool.call.kind != "custom"}
    if unknown:
        raise InvalidRequestError(
            f"tool_use_id: {', '.join(sorted(unknown))} does not wait for a confirmation here",
            field="tool_use_id",
        )
    # Only now, when every event is known to be good, may the session change.
    _apply(actor, plan, events)
    return plan


def _check(actor: SessionActor, plan: Acceptance, event: ClientEvent, where: str) -> None:
    match event:
        case UserMessage() | UserInterrupt():
            _check_thread(actor, event, where)
        case UserToolConfirmation():
            if any(event.tool_use_id == c.tool_use_id for c in plan.confirmations):
                raise InvalidRequestError(
                    f"{where}.tool_use_id: {event.tool_use_id} is answered twice in this request"
                )
            plan.confirmations.append(
                Confirmation(event.tool_use_id, event.result, event.deny_message)
            )
        case _:
            raise InvalidRequestError(f"{where}.type: {event.type} is not accepted here")


def _check_thread(actor: SessionActor, event: Body, where: str) -> None:
    thread = getattr(event, "session_thread_id", None)
    if thread is not None and thread != actor.record.thread_id:
        raise InvalidRequestError(
            f"{where}.session_thread_id: this session's only thread is {actor.record.thread_id}"
        )


def _apply(actor: SessionActor, plan: Acceptance, events: Sequence[ClientEvent]) -> None:
    position = actor.queue[-1].position + 1 if actor.queue else 1
    for event in events:
        event_id = new_id("sevt")
        plan.order.append(event_id)
        fields = event.model_dump(mode="json", exclude={"type"}, exclude_none=True)
        is_busy = actor.record.turn is not None or bool(actor.queue) or plan.starting is not None
        must_wait = isinstance(event, UserMessage | UserInterrupt) and is_busy
        if must_wait:
            plan.queued.append(QueuedEvent(position, event_id, event.type, fields))
            position += 1
            plan.is_interrupt = plan.is_interrupt or event.type == INTERRUPT
        elif isinstance(event, UserMessage):
            plan.drafts += actor.begin(event_id, fields)
            plan.starting = fields["content"]
        else:
            plan.drafts.append(Draft(event.type, fields, event_id))
    if plan.confirmations and actor.record.turn is not None and actor.record.turn.blocked:
        actor.record.turn.blocked = []
        actor.record.status = "running"
        actor.start_clock()
        plan.drafts += actor.running_drafts()


def _insert_queued(session_id: str, events: Sequence[QueuedEvent]) -> Any:
    rows = [(session_id, e.position, e.id, e.type, json.dumps(e.fields)) for e in events]

    def insert(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO queued_events (session_id, position, id, type, body) VALUES (?, ?, ?, ?, ?)",
            rows,
        )

    return insert


def _answers(acceptance: Acceptance, appended: Sequence[Event]) -> list[dict[str, Any]]:
    known = {event.id: event.body for event in appended}
    known |= {event.id: event.answer() for event in acceptance.queued}
    return [known[event_id] for event_id in acceptance.order]
