"""Events about tool calls and model requests, as drafts; and what they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.managed.events.log import Draft, Preview
from sidecar.managed.turns.tool_plan import ToolCall

INTERRUPTED_TEXT = "interrupted before completion"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model request; input without the cached part."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def answer(self) -> dict[str, int]:
        """Return the API's `model_usage`."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens,
            "cache_read_input_tokens": self.cache_read_input_tokens,
        }


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


@dataclass(slots=True)
class OpenTool:
    """A call that has no result yet."""

    event_id: str
    call_id: str
    call: ToolCall
    permission_id: str | None = None
    is_answered: bool = False
    """The client has answered, which is accepted once."""
    is_confirmed: bool = False
    """The client's answer, or our policy's, was passed on."""
    is_granted: bool = False
    """Allowed before it was asked: the repetition of a call that was confirmed after a restart."""
    deny_message: str | None = None
    is_denial_held: bool = False
    """Denied, and opencode is told later: with one call it rejects all that still wait for an answer."""

    @property
    def needs_client(self) -> bool:
        """Whether the client is to answer at some time: its result, or its word."""
        return self.call.kind == "custom" or (self.call.policy == "ask" and not self.is_granted)


def tool_use_draft(tool: OpenTool) -> Draft:
    """Make the event for a call; LAP also reads `status`."""
    call = tool.call
    if call.kind == "custom":
        return Draft(
            "agent.custom_tool_use", {"name": call.name, "input": call.input}, tool.event_id
        )
    fields: dict[str, Any] = {"name": call.name, "input": call.input}
    if call.kind == "mcp":
        fields["mcp_server_name"] = call.server
    fields["evaluated_permission"] = call.policy
    if call.policy != "deny":
        fields["evaluation"] = {"type": f"always_{call.policy}"}
    kind = "agent.mcp_tool_use" if call.kind == "mcp" else "agent.tool_use"
    return Draft(kind, fields, tool.event_id)


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
        {"model_request_start_id": start_id, "is_error": is_error, "model_usage": usage.answer()},
    )


def result_of(tool: OpenTool, state: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    if state["status"] == "error":
        text = str(state.get("error") or "the tool failed")
        if tool.deny_message is not None:
            text = f"Call rejected by the user: {tool.deny_message}"
        elif text == "Tool execution aborted":
            text = INTERRUPTED_TEXT
        return [{"type": "text", "text": text}], True
    content: list[dict[str, Any]] = [{"type": "text", "text": str(state.get("output") or "")}]
    for file in state.get("attachments") or ():
        mime, url = str(file.get("mime") or ""), str(file.get("url") or "")
        if mime.startswith("image/") and url.startswith("data:") and "," in url:
            source = {"type": "base64", "media_type": mime, "data": url.split(",", 1)[1]}
            content.append({"type": "image", "source": source})
    return content, False


def step_usage(part: Mapping[str, Any]) -> Usage:
    tokens = part.get("tokens") or {}
    cache = tokens.get("cache") or {}
    return Usage(
        input_tokens=int(tokens.get("input") or 0),
        output_tokens=int(tokens.get("output") or 0) + int(tokens.get("reasoning") or 0),
        cache_creation_input_tokens=int(cache.get("write") or 0),
        cache_read_input_tokens=int(cache.get("read") or 0),
    )
