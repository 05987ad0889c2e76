"""The calls of a turn: as the log has them, and those that are open in opencode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.managed.turns.tool_plan import ToolCall

CallKind = Literal["builtin", "mcp", "custom"]

INTERRUPTED_TEXT = "interrupted before completion"


@dataclass(slots=True)
class LoggedCall:
    """A call as the log has it: `answer` is the client's event, `has_result` says it is closed."""

    event_id: str
    kind: CallKind
    name: str
    input: dict[str, Any]
    server: str | None
    answer: Mapping[str, Any] | None = None
    has_result: bool = False


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


def result_of(tool: OpenTool, state: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Return the result of a finished call as API content blocks, and whether it is an error.

    `state` is the `state` of opencode's tool part, `completed` or `error`.
    """
    if state["status"] == "error":
        text = str(state.get("error") or "the tool failed")
        if tool.deny_message is not None:
            text = f"Call rejected by the user: {tool.deny_message}"
        elif text == "Tool execution aborted":
            text = INTERRUPTED_TEXT
        return [{"type": "text", "text": text}], True
    text = str(state.get("output") or "")
    if code := _exit_code(tool, state):
        text = f"{text.rstrip()}\n\nexit code {code}".lstrip()
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for file in state.get("attachments") or ():
        mime, url = str(file.get("mime") or ""), str(file.get("url") or "")
        if mime.startswith("image/") and url.startswith("data:") and "," in url:
            source = {"type": "base64", "media_type": mime, "data": url.split(",", 1)[1]}
            content.append({"type": "image", "source": source})
    return content, bool(code)


def _exit_code(tool: OpenTool, state: Mapping[str, Any]) -> int:
    """Return the exit code of a shell command that failed, else 0: opencode calls it completed."""
    metadata = state.get("metadata")
    if tool.call.kind != "builtin" or tool.call.name != "bash" or not isinstance(metadata, Mapping):
        return 0
    code = metadata.get("exit")
    return code if isinstance(code, int) else 0
