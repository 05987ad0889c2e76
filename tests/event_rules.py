"""What must be true of the events of any session, whatever happened in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

RESULT_OF = {
    "agent.tool_use": ("agent.tool_result", "tool_use_id"),
    "agent.mcp_tool_use": ("agent.mcp_tool_result", "mcp_tool_use_id"),
    "agent.custom_tool_use": ("user.custom_tool_result", "custom_tool_use_id"),
}
_ENDING = ["session.thread_status_idle", "session.usage", "session.status_idle"]


def check_events(events: Sequence[Mapping[str, Any]], *, is_over: bool = True) -> None:
    """Check the invariants; `is_over` says that the session's last turn has ended for good.

    Ids are unique and times grow strictly; every model request has one end, every call one result
    of its kind, after the end of the request that made it; every turn has exactly one terminal.
    """
    events = [event for event in events if event.get("processed_at") is not None]
    assert len({event["id"] for event in events}) == len(events), "ids are unique"
    times = [event["processed_at"] for event in events]
    assert times == sorted(set(times)), "processed_at grows strictly"
    _check_requests(events, is_over)
    _check_calls(events, is_over)
    _check_turns(events, is_over)


def _check_requests(events: Sequence[Mapping[str, Any]], is_over: bool) -> None:
    open_requests: set[str] = set()
    for event in events:
        if event["type"] == "span.model_request_start":
            assert not open_requests, "one model request at a time"
            open_requests.add(event["id"])
        elif event["type"] == "span.model_request_end":
            open_requests.remove(event["model_request_start_id"])
        elif event["type"] in RESULT_OF or event["type"] == "agent.message":
            assert open_requests, (
                f"{event['type']} outside a request: {[e['type'] for e in events]}"
            )
        elif event["type"] == "session.status_idle":
            assert not open_requests, "no request is open while the session is idle"
    assert not (is_over and open_requests)


def _check_calls(events: Sequence[Mapping[str, Any]], is_over: bool) -> None:
    results: Counter[str] = Counter()
    calls: dict[str, str] = {}
    is_request_open = False
    request_of_call: dict[str, int] = {}
    request = 0
    for event in events:
        type_ = event["type"]
        if type_ == "span.model_request_start":
            is_request_open, request = True, request + 1
        elif type_ == "span.model_request_end":
            is_request_open = False
        elif type_ in RESULT_OF:
            calls[event["id"]] = type_
            request_of_call[event["id"]] = request
        for use_type, (result_type, field) in RESULT_OF.items():
            if type_ == result_type:
                call = event[field]
                assert calls.get(call) == use_type, f"{type_} answers a call of its kind"
                is_same = is_request_open and request_of_call[call] == request
                assert not is_same, "a result comes after its request"
                results[call] += 1
    assert set(results.values()) <= {1}, "no call is answered twice"
    if is_over:
        assert results.keys() == calls.keys(), "every call is answered"


def _check_turns(events: Sequence[Mapping[str, Any]], is_over: bool) -> None:
    state = "idle"
    for number, event in enumerate(events):
        type_ = event["type"]
        if type_ == "session.status_running":
            assert state in {"opened", "waiting", "rescheduled"}, f"running while {state}"
            state = "running"
        elif type_ == "session.status_rescheduled":
            assert state == "running"
            state = "rescheduled"
        elif type_ == "session.status_idle":
            assert state != "idle", "a turn has one terminal"
            state = "waiting" if event["stop_reason"]["type"] == "requires_action" else "idle"
            assert [e["type"] for e in events[number - 2 : number + 1]] == _ENDING
        elif type_ == "user.message":
            assert state == "idle", "a message opens its turn"
            state = "opened"
        elif type_.startswith(("agent.", "span.")):
            assert state not in {"idle", "opened"}, f"{type_} outside any turn"
    assert not is_over or state == "idle"
