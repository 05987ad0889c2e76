"""A request body in either wire format, reduced to what the script needs. Pure.

Formats: OpenAI chat completions (`messages[].role` user, assistant, tool) and Anthropic messages
(content blocks, tool results inside user messages).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from sidecar.demo_gateway import script

_TITLE_MARKS = ("Generate a title for this conversation", "You are a title generator")


@dataclass(slots=True)
class Conversation:
    """What the script looks at. `rounds` counts finished rounds of tool calls since the last prompt.

    `last_calls` are the (name, JSON arguments) of the newest answer that called tools.
    """

    model: str
    stream: bool
    prompt: str = ""
    rounds: int = 0
    last_results: list[str] = field(default_factory=list)
    last_calls: list[tuple[str, str]] = field(default_factory=list)
    tool_names: list[str] = field(default_factory=list)
    wants_title: bool = False
    input_words: int = 0
    key: str = ""

    def offered(self, name: str) -> str | None:
        """Return the offered tool called `name`, or whose name ends in `_name`."""
        if name in self.tool_names:
            return name
        return next((t for t in self.tool_names if t.endswith(f"_{name}")), None)


def read(body: dict[str, Any], *, session_id: str) -> Conversation:
    """Read a request body of either format."""
    messages = [m for m in body.get("messages") or [] if isinstance(m, dict)]
    conversation = Conversation(
        model=str(body.get("model") or ""),
        stream=bool(body.get("stream")),
        tool_names=[_tool_name(tool) for tool in body.get("tools") or []],
    )
    after_results = False
    for message in messages:
        texts, results = _parts(message)
        conversation.last_calls = _calls(message) or conversation.last_calls
        if results:
            if not after_results:
                conversation.rounds += 1
                conversation.last_results = []
            conversation.last_results += results
        after_results = bool(results)
        if texts and message.get("role") == "user":
            scripted = [text for text in texts if script.has_directives(text)]
            conversation.prompt = (scripted or texts)[-1]
            conversation.rounds = 0
            conversation.last_results = []
            after_results = False
    everything = json.dumps([body.get("system"), messages], sort_keys=True)
    conversation.key = hashlib.sha256(f"{session_id}\n{everything}".encode()).hexdigest()
    conversation.input_words = len(everything.split())
    conversation.wants_title = not conversation.tool_names and any(
        mark in everything for mark in _TITLE_MARKS
    )
    return conversation


def _parts(message: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return (texts, tool results) of one message."""
    content = message.get("content")
    if message.get("role") == "tool":
        return [], [_text(content)]
    if isinstance(content, str):
        return ([content] if content else []), []
    blocks = [b for b in content or [] if isinstance(b, dict)]
    texts = [str(b.get("text", "")) for b in blocks if b.get("type") == "text"]
    results = [_text(b.get("content")) for b in blocks if b.get("type") == "tool_result"]
    return texts, results


def _calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, JSON arguments) of the tools that an assistant message calls."""
    functions = [call.get("function") or {} for call in message.get("tool_calls") or []]
    calls = [(str(f.get("name")), str(f.get("arguments") or "{}")) for f in functions]
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return calls + [
        (str(b.get("name")), json.dumps(b.get("input") or {}))
        for b in blocks
        if isinstance(b, dict) and b.get("type") == "tool_use"
    ]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(b.get("text", "")) for b in content if isinstance(b, dict))
    return ""


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name") or "")
