"""The calls of a turn: as the log has them, and those that are open in opencode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
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


class CallState(Enum):
    """What was decided about an open call."""

    UNDECIDED = "nothing yet: it runs, or it waits for the client"
    GRANTED = "allowed before opencode asks: it repeats a call that was confirmed before a restart"
    ALLOWED = "opencode was answered that it may run"
    DENIAL_HELD = "denied, but opencode is answered later"
    DENIED = "opencode was answered that it must not run"
    ANSWERED = "the client has sent the result of a custom tool"


CallKey = tuple[str, str]
"""opencode's ids of a message and of a call in it. Some gateways begin with the same id in each answer."""


@dataclass(slots=True)
class OpenCall:
    """A call that has no result yet. `permission_id` is set when opencode asks whether it may run."""

    event_id: str
    key: CallKey
    part_id: str
    """opencode's id of the part that shows the call."""
    call: ToolCall
    permission_id: str | None = None
    state: CallState = CallState.UNDECIDED
    deny_message: str | None = None

    @property
    def needs_client(self) -> bool:
        """Whether the client has to answer it at some time, with a result or a confirmation."""
        is_granted = self.state is CallState.GRANTED
        return self.call.kind == "custom" or (self.call.policy == "ask" and not is_granted)

    @property
    def waits_for_client(self) -> bool:
        """Whether the call goes on only when the client has answered."""
        if self.state is not CallState.UNDECIDED:
            return False
        if self.call.kind == "custom":
            return True
        return self.call.policy == "ask" and self.permission_id is not None

    def logged(self) -> LoggedCall:
        """Return the call as the log has it."""
        call = self.call
        return LoggedCall(self.event_id, call.kind, call.name, call.input, call.server)


def result_of(call: OpenCall, state: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Return the result of a finished call as API content blocks, and whether it is an error.

    `state` is the `state` of opencode's tool part, `completed` or `error`.
    """
    if state["status"] == "error":
        text = str(state.get("error") or "the tool failed")
        if call.deny_message is not None:
            text = f"Call rejected by the user: {call.deny_message}"
        elif text == "Tool execution aborted":
            text = INTERRUPTED_TEXT
        return [{"type": "text", "text": text}], True
    text = str(state.get("output") or "")
    code = _exit_code(call, state)
    if code:
        text = f"{text.rstrip()}\n\nexit code {code}".lstrip()
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for file in state.get("attachments") or ():
        mime, url = str(file.get("mime") or ""), str(file.get("url") or "")
        if mime.startswith("image/") and url.startswith("data:") and "," in url:
            source = {"type": "base64", "media_type": mime, "data": url.split(",", 1)[1]}
            content.append({"type": "image", "source": source})
    return content, code != 0


def _exit_code(call: OpenCall, state: Mapping[str, Any]) -> int | None:
    """Return the exit code of a shell command, 0 for any other call: opencode calls it completed.

    None is a command that was killed, by an abort or at its time limit; its output says so.
    """
    metadata = state.get("metadata")
    if call.call.kind != "builtin" or call.call.name != "bash" or not isinstance(metadata, Mapping):
        return 0
    code = metadata.get("exit", 0)
    return code if isinstance(code, int) else None
