"""What of opencode's events is read at all."""

import json
from typing import Any

import pytest

from sidecar.ids import new_id
from sidecar.opencode.boot import Boot
from sidecar.opencode.events import EventPump, read_frame
from sidecar.wire.opencode_events import prompt_part_id


def frame(payload: dict[str, Any], **around: Any) -> bytes:
    """Make a frame as opencode sends it."""
    event = {"directory": "/d", "project": "p", "payload": payload, **around}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode()


@pytest.mark.parametrize("type_", ["sync", "server.heartbeat", "session.updated", "session.diff"])
def test_what_nobody_wants_is_skipped(type_: str) -> None:
    """Wherever the type stands."""
    assert read_frame(frame({"type": type_, "syncEvent": {}})) is None
    assert read_frame(frame({"id": "evt_1", "type": type_, "properties": {}})) is None
    assert read_frame(frame({"properties": {}, "type": type_})) is None


def test_unwanted_ones_are_not_parsed() -> None:
    """A durable copy of megabytes costs a look at its beginning."""
    assert read_frame(b'data: {"payload":{"type":"sync","syncEvent":{broken') is None


def test_the_words_of_a_user_skip_nothing() -> None:
    """Neither text nor a tool's input that looks like an unwanted event is taken for one."""
    looks = {"payload": {"type": "sync"}, "text": '"payload":{"type":"sync"'}
    payload = {"id": "evt_1", "type": "message.part.updated", "properties": looks}
    event = read_frame(frame(payload, directory='/d/"payload":{"type":"sync"'))
    assert event is not None
    assert event["payload"] == payload


def test_comments_are_no_events() -> None:
    """Only `data:` is read."""
    assert read_frame(b": keep-alive") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{broken",
        b"[]",
        b"5",
        b"{}",
        b'{"payload":null}',
        b'{"payload":{"properties":{}}}',
        b'{"payload":{"type":5}}',
        b'{"payload":{"type":"session.idle","properties":[]}}',
        b'{"payload":{"type":"\xff"}}\n{"payload":{"type":"x"}}',
    ],
)
def test_what_is_no_event_is_a_value_error(data: bytes) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(ValueError, match=r".+"):
        read_frame(b"data: " + data)


def test_messages_of_sessions_without_a_subscriber_are_not_parsed() -> None:
    """Turns of opencode's own API cost a look at their events' beginning."""
    around = (
        b'data: {"directory":"/d","payload":{"id":"evt_1","type":"message.part.delta","properties":'
    )
    unwanted = around + b'{"sessionID":"ses_other","delta":{broken'
    assert read_frame(unwanted, sessions={"ses_1"}) is None
    wanted = around + b'{"delta":"word","sessionID":"ses_1"}}}'
    assert read_frame(wanted, sessions={"ses_1"}) is not None


def test_a_tools_input_hides_no_event() -> None:
    """A model may call a tool with a field `sessionID` of its own."""
    part = {"type": "tool", "state": {"input": {"sessionID": "ses_other"}}, "sessionID": "ses_1"}
    payload = {"id": "evt_1", "type": "message.part.updated", "properties": {"part": part}}
    assert read_frame(frame(payload), sessions={"ses_1"}) is not None
    assert (
        read_frame(frame(payload), sessions={"ses_other"}) is not None
    )  # read, and then not dispatched
    assert read_frame(frame({**payload, "type": "session.idle"}), sessions=()) is not None


class _Boots:
    boots = ()

    def on_serving(self, _callback: object) -> None: ...

    def on_lost(self, _callback: object) -> None: ...


def reads_on(
    properties: dict[str, Any], *, type_: str = "message.part.updated", session: str = "ses_ours"
) -> bool:
    """Whether the pump reads on in a large event that begins like this; a session of ours is followed."""
    pump, boot = EventPump(supervisor=_Boots()), Boot(1, object(), 1)
    pump.subscribe(boot, "ses_ours", lambda _event: None)
    payload = {"id": "evt_1", "type": type_, "properties": {"sessionID": session, **properties}}
    return pump.is_wanted(boot, frame(payload))


PROMPT = {"type": "text", "text": "x" * 100_000}


def test_large_events_that_no_one_needs_are_not_read_to_the_end() -> None:
    """The echo of a prompt of ours, an unknown session, a durable copy; a tool's result is read."""
    ours = {"id": prompt_part_id(new_id("msg"), 0), **PROMPT}
    assert not reads_on({"part": ours})
    assert not reads_on({"part": {"id": "prt_1", **PROMPT}}, session="ses_other")
    assert not reads_on({"part": {"id": "prt_1", **PROMPT}}, type_="sync")
    assert reads_on({"part": {"id": "prt_2075162bb001455F4YLN0xfebD", **PROMPT}})
    assert reads_on({"part": {"type": "tool", "state": PROMPT, "id": "prt_1"}})
    assert reads_on({"info": {"properties": {"sessionID": "ses_other"}}})
