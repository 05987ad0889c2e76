"""The row of a session: its status, its turn, what it waits for, its active time."""

from __future__ import annotations

from sidecar.managed.events.event import Draft
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.outcome import COMPLETED, failed
from sidecar.managed.turns.state import TurnRecord
from tests.turn_player import new_record

SECOND = 1_000_000


def types(drafts: list[Draft]) -> list[str]:
    return [draft.type.removeprefix("session.") for draft in drafts]


def test_a_turn_from_its_begin_to_its_end() -> None:
    """Each change returns the events that announce it; active time excludes the client's."""
    record = new_record()
    assert types(record.begin("sevt_1", "msg_1", 0)) == ["status_running", "thread_status_running"]
    assert types(record.wait(["sevt_2", "sevt_3"], 2 * SECOND)) == [
        "thread_status_idle",
        "usage",
        "status_idle",
    ]
    assert (record.status, record.state, record.active_us) == ("idle", "waiting", 2 * SECOND)
    assert types(record.take_answer(60 * SECOND)) == ["status_running", "thread_status_running"]
    assert record.take_answer(60 * SECOND) == [], "answered before the turn had to wait"
    assert types(record.reschedule(61 * SECOND)) == [
        "status_rescheduled",
        "thread_status_rescheduled",
    ]
    record.run(62 * SECOND)
    ended = record.end(COMPLETED, 63 * SECOND)
    assert ended[-1].fields == {"stop_reason": {"type": "end_turn"}}
    assert (record.state, record.turn, record.active_us) == ("idle", None, 5 * SECOND)


def test_a_failure_that_ends_the_session() -> None:
    """The error comes before the terminal event."""
    record = new_record()
    record.begin("sevt_1", "msg_1", 0)
    ended = record.end(failed(Failure("unknown_error", "lost", "terminal")), SECOND)
    assert types(ended) == ["error", "thread_status_terminated", "status_terminated"]
    assert record.state == "terminated"


def test_the_turn_is_stored_and_read_back() -> None:
    """Rows of earlier versions say `is_prompted`, and their prompts are not sent a second time."""
    turn = TurnRecord("sevt_1", "msg_1", is_repeated=True, blocked=["sevt_2"])
    assert TurnRecord.read(turn.stored()) == turn
    earlier = (
        '{"user_event_id": "sevt_1", "message_id": "msg_1", "is_prompted": true, "blocked": []}'
    )
    assert TurnRecord.read(earlier).is_repeated
