"""The events of a turn, as drafts: tool calls, model requests, and the session's status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.managed.events.event import Draft, Preview
from sidecar.managed.turns.tool_calls import OpenCall
from sidecar.model_requests import Usage


@dataclass(slots=True)
class Output:
    """What one input led to."""

    drafts: list[Draft] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)
    used: list[Usage] = field(default_factory=list)

    def extend(self, more: Output) -> None:
        """Add what the next input led to."""
        self.drafts += more.drafts
        self.previews += more.previews
        self.used += more.used


def tool_use_draft(open_call: OpenCall) -> Draft:
    """Make the event for a call; LAP also reads `status`."""
    call = open_call.call
    if call.kind == "custom":
        return Draft(
            "agent.custom_tool_use", {"name": call.name, "input": call.input}, open_call.event_id
        )
    fields: dict[str, Any] = {"name": call.name, "input": call.input}
    if call.kind == "mcp":
        fields["mcp_server_name"] = call.server
    fields["evaluated_permission"] = call.policy
    if call.policy != "deny":
        fields["evaluation"] = {"type": f"always_{call.policy}"}
    kind = "agent.mcp_tool_use" if call.kind == "mcp" else "agent.tool_use"
    return Draft(kind, fields, open_call.event_id)


def tool_result_draft(
    tool_use_id: str, kind: str, content: Sequence[Mapping[str, Any]], is_error: bool
) -> Draft:
    """Make the event for a result; `output` or `error` is the plain text that LAP shows."""
    text = "\n".join(block["text"] for block in content if block.get("type") == "text")
    fields: dict[str, Any] = {"content": list(content), "is_error": is_error}
    fields["error" if is_error else "output"] = text
    if kind == "custom":
        return Draft("user.custom_tool_result", {"custom_tool_use_id": tool_use_id, **fields})
    if kind == "mcp":
        return Draft("agent.mcp_tool_result", {"mcp_tool_use_id": tool_use_id, **fields})
    return Draft("agent.tool_result", {"tool_use_id": tool_use_id, **fields})


def request_end_draft(start_id: str, *, is_error: bool | None, usage: Usage) -> Draft:
    """Make the end of a model request."""
    return Draft(
        "span.model_request_end",
        {"model_request_start_id": start_id, "is_error": is_error, "model_usage": usage.to_api()},
    )


def step_usage(part: Mapping[str, Any]) -> Usage:
    """Return the tokens of opencode's `step-finish` part."""
    tokens = part.get("tokens") or {}
    cache = tokens.get("cache") or {}
    return Usage(
        input_tokens=int(tokens.get("input") or 0),
        output_tokens=int(tokens.get("output") or 0) + int(tokens.get("reasoning") or 0),
        cache_creation_input_tokens=int(cache.get("write") or 0),
        cache_read_input_tokens=int(cache.get("read") or 0),
    )


def session_usage(usage: Usage, active_us: int) -> dict[str, Any]:
    """Return the API's usage object of a session. All cache writes count as the five-minute kind."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation_input_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "active_seconds": active_us / 1e6,
    }


def status_drafts(
    thread: Mapping[str, Any], status: Literal["running", "rescheduled"]
) -> list[Draft]:
    """Make the pair of events, session and thread, that shows a status.

    `thread` has `session_thread_id` and `agent_name`.
    """
    return [Draft(f"session.status_{status}"), Draft(f"session.thread_status_{status}", thread)]


def idle_drafts(
    thread: Mapping[str, Any], usage: Usage, active_us: int, stop: Mapping[str, Any]
) -> list[Draft]:
    """Make the three events of a session that stopped; `stop` has `stop_reason`. The status comes last."""
    return [
        Draft("session.thread_status_idle", {**thread, **stop}),
        Draft("session.usage", {"usage": session_usage(usage, active_us), "budget": None}),
        Draft("session.status_idle", stop),
    ]


def terminated_drafts(thread: Mapping[str, Any]) -> list[Draft]:
    """Make the two events of a session that has ended for good."""
    return [Draft("session.thread_status_terminated", thread), Draft("session.status_terminated")]
