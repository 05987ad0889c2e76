"""Which API a JSON object belongs to, so that an answer in the wrong one can be named. Pure."""

from __future__ import annotations

from typing import Any

from sidecar.gateway.streams.facts import Wire, is_reason
from sidecar.wire.scalars import read_flag

REQUESTED: dict[Wire, str] = {
    "chat": "a chat completion",
    "messages": "a message of the Anthropic Messages API",
    "responses": "a response of the OpenAI Responses API",
}
"""What a request of a wire format asks for. Names only: opencode tries again by digits and certain words."""

_OTHERS = {
    "gemini": "the native format of Gemini",
    "ollama": "the native format of Ollama",
    "dashscope": "the native format of DashScope",
}
_HEADS_OF_RESPONSES = frozenset({"response.created", "response.queued", "response.in_progress"})
_MESSAGE_EVENTS = frozenset(
    {
        *("message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)


def format_of(value: dict[str, Any]) -> str | None:
    """Return the wire format of a streamed or whole answer, None for an object that belongs to none.

    Besides the formats of `Wire` it knows some that gateways pass on when they do not translate: `gemini`,
    `ollama` and `dashscope`.
    """
    type_ = value.get("type")
    type_ = type_ if isinstance(type_, str) else ""
    if isinstance(value.get("choices"), (list, dict)):
        return "chat"
    if type_ in _MESSAGE_EVENTS or (type_ == "message" and isinstance(value.get("content"), list)):
        return "messages"
    if value.get("object") == "response" or type_.startswith("response."):
        return "responses"
    return _other_format_of(value)


def _other_format_of(value: dict[str, Any]) -> str | None:
    if isinstance(value.get("candidates"), list):
        return "gemini"
    if read_flag(value.get("done")) is not None and ("message" in value or "response" in value):
        return "ollama"
    output = value.get("output")
    if isinstance(output, dict) and ("choices" in output or "finish_reason" in output):
        return "dashscope"
    return None


def is_preamble(wire: Wire, value: dict[str, Any]) -> bool:
    """Whether an object brings nothing of the answer yet: a sign of life, or the answer's head."""
    type_ = value.get("type")
    if wire == "chat":
        choices = value.get("choices")
        return all(_is_blank(each) for each in choices) if isinstance(choices, list) else True
    if wire == "messages":
        message = value.get("message")
        is_head = type_ == "message_start" and not (
            isinstance(message, dict) and message.get("content")
        )
        return is_head or format_of(value) != "messages"
    if wire == "responses":
        return str(type_) in _HEADS_OF_RESPONSES or format_of(value) != "responses"
    return False


def _is_blank(choice: object) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    has_delta = any(item for name, item in delta.items() if name != "role")
    has_more = choice.get("message") or choice.get("text")
    return not (has_delta or has_more or is_reason(choice.get("finish_reason")))


def describe_mismatch(requested: Wire, came: str) -> str:
    """Return the sentence that names what came and what was asked for."""
    named = _OTHERS.get(came) or next(name for wire, name in REQUESTED.items() if wire == came)
    return f"the gateway answered with {named}, where {REQUESTED[requested]} was asked for"
