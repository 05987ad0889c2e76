"""How a turn goes on after its child was lost while calls waited for the client.

While the child lives, an answer goes to the call that waits in it. After a restart, of the child or of
the sidecar, the child no longer knows the call; the log does. The turn then goes on with a new prompt that
says how each call ended, and a call that was allowed is run when the model repeats it, without asking
again and under the event that announced it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.managed.events.event import Draft
from sidecar.managed.turns.event_builders import request_end_draft, tool_result_draft
from sidecar.managed.turns.tool_calls import INTERRUPTED_TEXT, CallKind, LoggedCall
from sidecar.model_requests import Usage

CALL_KINDS: Mapping[str, CallKind] = {
    "agent.tool_use": "builtin",
    "agent.mcp_tool_use": "mcp",
    "agent.custom_tool_use": "custom",
}
_RESULT_FIELDS = {
    "agent.tool_result": "tool_use_id",
    "agent.mcp_tool_result": "mcp_tool_use_id",
    "user.custom_tool_result": "custom_tool_use_id",
    "user.tool_result": "tool_use_id",
}
_HEADING = (
    "The runtime was restarted while tool calls were waiting for the user. This is what became of "
    "them; go on from there."
)
ANSWERS = frozenset({"user.tool_confirmation", "user.custom_tool_result"})


@dataclass(slots=True)
class Continuation:
    """What the next turn must begin with."""

    granted: list[LoggedCall] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    content: list[dict[str, Any]] = field(default_factory=list)


def logged_calls(events: Iterable[Mapping[str, Any]]) -> dict[str, LoggedCall]:
    """Return the calls of a turn by event id, in order."""
    calls: dict[str, LoggedCall] = {}
    for event in events:
        kind = CALL_KINDS.get(event["type"])
        if kind is not None:
            calls[event["id"]] = LoggedCall(
                event["id"], kind, event["name"], event["input"], event.get("mcp_server_name")
            )
        elif event["type"] == "user.tool_confirmation" and event["tool_use_id"] in calls:
            calls[event["tool_use_id"]].answer = event
        elif event["type"] in _RESULT_FIELDS:
            call = calls.get(event[_RESULT_FIELDS[event["type"]]])
            if call is not None:
                call.has_result = True
                call.answer = event if event["type"] in ANSWERS else call.answer
    return calls


def answered_calls(events: Sequence[Mapping[str, Any]]) -> list[LoggedCall]:
    """Return the calls of a turn's newest model request that have an answer the child may not know."""
    starts = [n for n, event in enumerate(events) if event["type"] == "span.model_request_start"]
    calls = logged_calls(events[starts[-1] :] if starts else events).values()
    return [
        call
        for call in calls
        if call.answer is not None and (call.kind == "custom" or not call.has_result)
    ]


def continuation_of(calls: Sequence[LoggedCall]) -> Continuation:
    """Return how a turn goes on whose waiting calls were all answered after a restart."""
    continuation = Continuation()
    lines = [_HEADING]
    for call in calls:
        shown = f"{call.name}({json.dumps(call.input)})"
        answer = call.answer or {}
        if call.kind == "custom":
            lines.append(f"- {shown} returned:\n{_plain(answer.get('content') or ())}")
        elif answer.get("result") == "allow":
            continuation.granted.append(call)
            lines.append(f"- {shown} was allowed and has not run yet: call it again, unchanged.")
        else:
            text = f"Call rejected by the user: {answer.get('deny_message') or 'no reason given'}"
            content = [{"type": "text", "text": text}]
            continuation.drafts.append(
                tool_result_draft(call.event_id, call.kind, content, is_error=True)
            )
            lines.append(f"- {shown} was not run. {text}")
    continuation.content = [{"type": "text", "text": "\n".join(lines)}]
    return continuation


def _plain(content: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(
        block["text"] if block.get("type") == "text" else f"[{block.get('type')}]"
        for block in content
    )


def closing_drafts(
    events: Iterable[Mapping[str, Any]], text: str = INTERRUPTED_TEXT
) -> list[Draft]:
    """Return an end for each open model request and an error result for each open call."""
    events = list(events)
    spans: dict[str, None] = {}
    for event in events:
        if event["type"] == "span.model_request_start":
            spans[event["id"]] = None
        elif event["type"] == "span.model_request_end":
            spans.pop(event["model_request_start_id"], None)
    content = [{"type": "text", "text": text}]
    ends = [request_end_draft(span, is_error=None, usage=Usage()) for span in spans]
    results = [
        tool_result_draft(call.event_id, call.kind, content, is_error=True)
        for call in logged_calls(events).values()
        if not call.has_result
    ]
    return [*ends, *results]
