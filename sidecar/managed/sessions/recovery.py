"""After a restart: what an earlier process left open is settled from the log alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.managed.common import timestamps
from sidecar.managed.sessions.actor import SessionActor
from sidecar.managed.sessions.table import turn_events
from sidecar.managed.turns.continuation import (
    ANSWERS,
    answered_calls,
    closing_drafts,
    continuation_of,
)
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.outcome import failed
from sidecar.store.interface import Store


async def recover(actor: SessionActor, database: Store, reason: str) -> None:
    """Bring one session to a state it can go on from. Needs the actor's lock.

    A turn that shows no work is run now, unless the child turns out to have taken its prompt, or it is
    the second time. Any other open turn is settled with an honest error. Queued messages follow.
    """
    record = actor.record
    if record.status in {"running", "rescheduling"} and record.turn is not None:
        events = await database.read(lambda connection: turn_events(connection, record.id))
        opening = next((e for e in events if e["id"] == record.turn.user_event_id), None)
        failure = Failure("unknown_error", reason)
        if opening is None or record.turn.is_repeated or _shows_work(events, opening["id"]):
            settled = Output(drafts=closing_drafts(events))
            await actor.end_turn(None, failed(failure), settled)
            return
        # A store that takes nothing yet would fail the turn at once, again and again.
        await actor.commit([])
        record.start_clock(timestamps.now_us())
        earlier = failure if record.child_session_id is not None else None
        if opening["type"] in ANSWERS:
            actor.launch([], continuation_of(answered_calls(events)), earlier=earlier)
        else:
            actor.launch(opening["content"], earlier=earlier)
        return
    await actor.start_next()


def _shows_work(events: Sequence[Mapping[str, Any]], opening_id: str) -> bool:
    """Whether the model was asked since. Results of the client's answers do not count as work."""
    after = itertools.dropwhile(lambda event: event["id"] != opening_id, events)
    return any(event["type"] == "span.model_request_start" for event in after)
