"""Which API a JSON object belongs to, so that an answer in the wrong one can be named. Pure."""

from __future__ import annotations

from typing import Any

from sidecar.gateway.streams.facts import Wire

REQUESTED: dict[Wire, str] = {
    "chat": "a chat completion",
    "messages": "a message of the Anthropic Messages API",
    "responses": "a response of the OpenAI Responses API",
}
"""What a request of a wire format asks for. Names only: opencode tries again by digits and certain words."""

_OTHERS = {"gemini": "the native format of Gemini", "ollama": "the native format of Ollama"}
_MESSAGE_EVENTS = frozenset(
    {
        *("message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)


def format_of(value: dict[str, Any]) -> str | None:
    """Return the wire format of a streamed or whole answer, None for an object that belongs to none.

    Besides the formats of `Wire` it knows two that gateways pass on when they do not translate: `gemini`
    and `ollama`.
    """
    type_ = value.get("type")
    type_ = type_ if isinstance(type_, str) else ""
    if isinstance(value.get("choices"), list):
        return "chat"
    if type_ in _MESSAGE_EVENTS or (type_ == "message" and isinstance(value.get("content"), list)):
        return "messages"
    if value.get("object") == "response" or type_.startswith("response."):
        return "responses"
    if isinstance(value.get("candidates"), list):
        return "gemini"
    if isinstance(value.get("done"), bool) and ("message" in value or "response" in value):
        return "ollama"
    return None


def describe_mismatch(requested: Wire, came: str) -> str:
    """Return the sentence that names what came and what was asked for."""
    named = _OTHERS.get(came) or next(name for wire, name in REQUESTED.items() if wire == came)
    return f"the gateway answered with {named}, where {REQUESTED[requested]} was asked for"
