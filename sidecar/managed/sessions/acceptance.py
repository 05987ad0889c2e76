"""Client events arriving at a session: validated as a whole, then accepted as a whole.

Runs under the session's lock, so what is decided here is still true when it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.aiokit import aside
from sidecar.config import TurnSettings
from sidecar.errors import ConflictError, InvalidRequestError, RateLimitedError
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import LONG_CHARS, Draft, Event
from sidecar.managed.sessions.actor import SessionActor
from sidecar.managed.sessions.table import insert_accepted
from sidecar.managed.turns.inputs import ClientAnswer, Interrupt
from sidecar.managed.turns.state import INTERRUPT, SYSTEM, AcceptedEvent, QueuedEvent
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.store.interface import Connection
from sidecar.wire.json_writing import is_shorter_in_utf8, json_size, write_json
from sidecar.wire.sessions import (
    ClientEvent,
    DocumentBlock,
    ImageBlock,
    SystemMessage,
    UserCustomToolResult,
    UserInterrupt,
    UserMessage,
    UserToolConfirmation,
    UserToolResult,
)

ModalitiesOf = Callable[[str], frozenset[str] | None]
"""Returns what a model ref takes (`text`, `image`, `pdf`), None when the model is unknown."""


@dataclass(slots=True)
class Acceptance:
    """What a batch of events will do."""

    drafts: list[Draft] = field(default_factory=list)
    queued: list[QueuedEvent] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    opens_turn: bool = False
    starting: list[dict[str, Any]] | None = None
    """The message that opens a turn, None for one that is long: it is read from the log when it is sent."""
    answers: dict[str, ClientAnswer] = field(default_factory=dict)
    is_resumed: bool = False
    is_interrupt: bool = False

    def answers_to(self, appended: Sequence[Event]) -> list[AcceptedEvent]:
        """Return all events of the batch, given those that went into the log."""
        found = {e.id: AcceptedEvent(e.id, is_queued=False, text=e.text) for e in appended}
        found |= {e.id: AcceptedEvent(e.id, is_queued=True, text=e.as_json()) for e in self.queued}
        return [found[id_] for id_ in self.order]


async def accept(
    actor: SessionActor,
    events: list[ClientEvent],
    *,
    limits: TurnSettings,
    modalities_of: ModalitiesOf,
    check_room: Callable[[], None],
    where: str = "events",
    before: Callable[[Connection], None] | None = None,
    request_id: str | None = None,
) -> list[AcceptedEvent]:
    """Accept a batch: persist it, set things going, return the events in the order of the batch.

    Needs the actor's lock. `events` is empty afterwards. `before` runs first in the same transaction; `where`
    is the field that errors name. Raises InvalidRequestError, ConflictError (archived session),
    RateLimitedError (queue full) or what `check_room` raises when there is no room for another turn, and then
    nothing was accepted.
    """
    plan = Acceptance()
    waiting = await actor.waiting_calls()
    texts = await _make_room(actor, events, limits)
    _check(actor, plan, events, where, waiting=waiting, modalities_of=modalities_of)
    if actor.record.turn is None and any(isinstance(event, UserMessage) for event in events):
        check_room()
    # Only now, when every event is known to be good, may the session change.
    _apply(actor, plan, events, texts, waiting)
    events.clear()  # what is long is not kept until it is stored
    appended = await actor.commit(
        plan.drafts,
        before=before,
        also=_insert_accepted(actor.record.id, plan.queued, request_id, plan.order),
    )
    actor.queue += plan.queued
    if plan.opens_turn:
        actor.launch(plan.starting)
    elif plan.is_resumed:
        await actor.resume()
    elif actor.turn is not None:
        for answer in plan.answers.values():
            actor.turn.put(answer)
    if plan.is_interrupt and actor.turn is not None:
        actor.turn.put(Interrupt())
    elif plan.is_interrupt:
        await actor.interrupt_waiting()
    await actor.start_next()
    return await aside(
        sum(len(event.text) for event in plan.queued), lambda: plan.answers_to(appended)
    )


async def _make_room(
    actor: SessionActor, events: Sequence[ClientEvent], limits: TurnSettings
) -> dict[int, str]:
    """Return the messages that may have to wait as they would be stored, by their place in the batch."""
    if actor.record.archived_at is not None or actor.record.status == "terminated":
        raise ConflictError(f"session {actor.record.id} has ended and takes no more events")
    places = [n for n, event in enumerate(events) if isinstance(event, UserMessage)]
    if actor.record.turn is None and not actor.queue:
        places = places[1:]  # the first one does not wait
    if not places:
        return {}
    if len(actor.queue) + len(places) > limits.max_queued_messages:
        raise _no_room(f"{limits.max_queued_messages} events")
    # What follows a message that waits waits behind it.
    places = [
        n for n, event in enumerate(events) if n in places or isinstance(event, SystemMessage)
    ]
    fields = {place: _fields(events[place]) for place in places}
    texts = await aside(
        json_size(fields), lambda: {place: _text(value) for place, value in fields.items()}
    )
    waiting_bytes = sum(len(event.text) for event in actor.queue) + sum(map(len, texts.values()))
    if waiting_bytes > limits.max_queued_bytes:
        raise _no_room(f"{limits.max_queued_bytes} bytes of events")
    return texts


def _no_room(much: str) -> RateLimitedError:
    return RateLimitedError(
        f"events: no more than {much} may wait on a session; wait for it to become idle",
        retry_after_seconds=5,
    )


def _text(fields: dict[str, Any]) -> str:
    """Return what is stored of an event that waits: ASCII, unless it is long and shorter in UTF-8."""
    is_long = json_size(fields) > LONG_CHARS
    return write_json(fields, is_ascii=not (is_long and is_shorter_in_utf8(fields)))


def _fields(event: ClientEvent) -> dict[str, Any]:
    return event.model_dump(mode="json", exclude={"type"}, exclude_none=True)


def _check(
    actor: SessionActor,
    plan: Acceptance,
    events: Sequence[ClientEvent],
    name: str,
    *,
    waiting: Mapping[str, LoggedCall],
    modalities_of: ModalitiesOf,
) -> None:
    for number, event in enumerate(events):
        where = f"{name}.{number}"
        match event:
            case UserMessage():
                _check_content(actor, event, where, modalities_of)
            case UserInterrupt():
                _check_thread(actor, event, where)
            case UserToolConfirmation():
                answer = ClientAnswer(event.tool_use_id, event.result, event.deny_message)
                _check_answer(plan, waiting, answer, f"{where}.tool_use_id", is_custom=False)
            case UserCustomToolResult():
                content = [b.model_dump(exclude_none=True) for b in event.content or ()]
                answer = ClientAnswer(
                    event.custom_tool_use_id, "allow", None, content, event.is_error is True
                )
                _check_answer(plan, waiting, answer, f"{where}.custom_tool_use_id", is_custom=True)
            case SystemMessage():
                _check_system(actor, events, number, where)
            case UserToolResult():
                raise InvalidRequestError(
                    f"{where}.type: user.tool_result is not offered: it is for self_hosted environments; "
                    "here built-in tools run on the server"
                )


def _check_content(
    actor: SessionActor, event: UserMessage, where: str, modalities_of: ModalitiesOf
) -> None:
    taken = modalities_of(actor.record.model_ref)
    if taken is None:
        return
    for number, block in enumerate(event.content):
        needed = _modality(block)
        if needed not in taken:
            raise InvalidRequestError(
                f"{where}.content.{number}: the model {actor.record.agent['model']['id']} takes no "
                f"{needed} input; use a model that does, or send text",
                field="content",
            )


def _modality(block: object) -> str:
    if isinstance(block, ImageBlock):
        return "image"
    if isinstance(block, DocumentBlock) and block.source.type != "text":
        media_type = getattr(block.source, "media_type", "application/pdf")
        return "text" if media_type.startswith("text/") else "pdf"
    return "text"


def _check_thread(actor: SessionActor, event: UserInterrupt, where: str) -> None:
    if event.session_thread_id not in {None, actor.record.thread_id}:
        raise InvalidRequestError(
            f"{where}.session_thread_id: this session's only thread is {actor.record.thread_id}"
        )


def _check_answer(
    plan: Acceptance,
    waiting: Mapping[str, LoggedCall],
    answer: ClientAnswer,
    where: str,
    *,
    is_custom: bool,
) -> None:
    call = waiting.get(answer.tool_use_id)
    if call is None or answer.tool_use_id in plan.answers:
        raise InvalidRequestError(
            f"{where}: {answer.tool_use_id[:80]!r} does not wait for an answer in this session "
            "(unknown, of another session, or answered already)"
        )
    if (call.kind == "custom") != is_custom:
        wanted = "user.custom_tool_result" if call.kind == "custom" else "user.tool_confirmation"
        raise InvalidRequestError(f"{where}: this call is answered by {wanted}")
    plan.answers[answer.tool_use_id] = answer


def _check_system(
    actor: SessionActor, events: Sequence[ClientEvent], number: int, where: str
) -> None:
    before = events[number - 1] if number else None
    follows_result = isinstance(before, UserCustomToolResult)
    follows_message = isinstance(before, UserMessage) and not actor.is_paused
    if number != len(events) - 1 or not (follows_result or follows_message):
        raise InvalidRequestError(
            f"{where}.type: system.message must be the last event of a request, right after a tool "
            "result or, unless calls wait for an answer, after a user.message"
        )


def _apply(
    actor: SessionActor,
    plan: Acceptance,
    events: Sequence[ClientEvent],
    texts: Mapping[int, str],
    waiting: Mapping[str, LoggedCall],
) -> None:
    position = actor.queue[-1].position + 1 if actor.queue else 1
    must_wait = bool(actor.queue) or not actor.may_start()
    for place, event in enumerate(events):
        event_id = new_id("sevt")
        plan.order.append(event_id)
        fields = _fields(event)
        has_turn = actor.record.turn is not None
        is_queued = isinstance(event, UserInterrupt) and has_turn
        is_queued |= isinstance(event, UserMessage) and (has_turn or must_wait)
        is_queued |= isinstance(event, SystemMessage) and bool(plan.queued)
        if is_queued:
            text = texts.get(place) or _text(fields)
            plan.queued.append(QueuedEvent(position, event_id, event.type, text))
            position += 1
            plan.is_interrupt |= event.type == INTERRUPT
        elif isinstance(event, UserMessage):
            plan.drafts += actor.begin(event_id, fields)
            plan.opens_turn = True
            plan.starting = fields["content"] if json_size(fields) <= LONG_CHARS else None
        else:
            plan.drafts.append(Draft(event.type, fields, event_id))
            if event.type == SYSTEM:
                actor.add_system(fields)
    if plan.answers:
        _apply_answers(actor, plan, waiting)


def _apply_answers(
    actor: SessionActor, plan: Acceptance, waiting: Mapping[str, LoggedCall]
) -> None:
    turn = actor.record.turn
    assert turn is not None
    last_answer = ""
    for draft in plan.drafts:
        answered = draft.fields.get("tool_use_id") or draft.fields.get("custom_tool_use_id")
        if answered in plan.answers and draft.id is not None:
            waiting[answered].answer = {"id": draft.id, "type": draft.type, **draft.fields}
            last_answer = draft.id
    now_us, awaited = timestamps.now_us(), list(turn.blocked)
    plan.drafts += actor.record.take_answer(now_us)
    if actor.turn is not None:
        return
    left = [event_id for event_id in awaited if waiting[event_id].answer is None]
    if left:
        plan.drafts += actor.record.wait(left, now_us)
    else:
        plan.is_resumed = True
        actor.begin_again(last_answer)


def _insert_accepted(
    session_id: str, events: Sequence[QueuedEvent], request_id: str | None, order: Sequence[str]
) -> Callable[[Connection], None]:
    rows = [(session_id, e.position, e.id, e.type, e.text) for e in events]

    def insert(connection: Connection) -> None:
        connection.executemany(
            "INSERT INTO queued_events (session_id, position, id, type, body) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        if request_id is not None:
            insert_accepted(connection, request_id, session_id, order)

    return insert
