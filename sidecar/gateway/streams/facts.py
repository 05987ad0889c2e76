"""What a model's answer says: its usage, an error, why it ended, whether it called tools. Pure.

Formats: OpenAI chat completions (`prompt_tokens` includes cached ones), OpenAI responses (the same
under `input_tokens`), Anthropic messages (`input_tokens` excludes them), and LiteLLM's mixture.
"""

from __future__ import annotations

from typing import Any, Literal

from sidecar.gateway.usage import larger, read_usage
from sidecar.model_requests import Usage

Wire = Literal["chat", "messages", "responses", "other"]

TERMINAL_MARK: dict[Wire, str] = {
    "chat": "finish_reason",
    "messages": "message_stop",
    "responses": "response.completed",
}
"""What every complete stream of a wire format has. `other` formats have none."""

_WIRE: dict[str, Wire] = {
    "chat/completions": "chat",
    "completions": "chat",
    "messages": "messages",
    "responses": "responses",
}
_LAST_RESPONSE_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_REFUSALS = frozenset({"refusal", "content_filter"})
FINAL_REASONS = frozenset(
    {
        *("stop", "length", "content_filter"),  # chat completions
        *("end_turn", "stop_sequence", "max_tokens", "refusal", "pause_turn"),  # messages
        "model_context_window_exceeded",
        *("completed", "max_output_tokens"),  # responses
    }
)
"""After one of these opencode asks the model no further; after any other reason it does."""


def wire_of(path: str) -> Wire:
    """Return the wire format of a route below `/v1/`."""
    return _WIRE.get(path, "other")


class AnswerFacts:
    """Collects from the JSON objects of one answer, streamed or whole.

    `usage` is None when the answer had none; `error` is the error object of an error inside the stream;
    `reason` is why the model stopped; `has_mark` says whether the terminal mark was there, and `is_over`
    that nothing of the answer can follow.
    """

    def __init__(self, wire: Wire) -> None:
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.reason: str | None = None
        self.has_call = False
        self.has_mark = wire == "other"
        self.is_over = False
        self._wire = wire

    @property
    def is_refusal(self) -> bool:
        """Whether the model refused to answer."""
        return self.reason in _REFUSALS

    @property
    def is_progress(self) -> bool:
        """Whether the answer brings a turn on: it called a tool, or it is a finished message."""
        return self.error is None and (self.has_call or self.reason in FINAL_REASONS)

    def see_done(self) -> None:
        """`[DONE]`: OpenAI's end of a stream, which some gateways send on every wire."""
        self.is_over = self.is_over or self._wire != "messages"

    def see(self, value: dict[str, Any]) -> None:
        """Look at one object."""
        # message: Anthropic's message_start; response: events of OpenAI's Responses API
        for holder in (value, value.get("message"), value.get("response")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                self.usage = larger(self.usage, read_usage(holder["usage"]))
        error = value.get("error") or _get(value.get("response"), "error")
        if value.get("type") == "error" and not error:  # the Responses API's has no `error` inside
            error = {"message": value.get("message"), "code": value.get("code")}
        if error:
            self.error = error if isinstance(error, dict) else {"message": str(error)}
            self.is_over = True
        elif self._wire == "chat":
            self._chat(value)
        elif self._wire == "messages":
            self._messages(value)
        elif self._wire == "responses":
            self._responses(value)

    def _chat(self, value: dict[str, Any]) -> None:
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = _get(choice, "delta") or _get(choice, "message")
            self.has_call |= bool(_get(delta, "tool_calls") or _get(delta, "function_call"))
            if reason := _get(choice, "finish_reason"):
                self.reason = str(reason)
                self.has_mark = True

    def _messages(self, value: dict[str, Any]) -> None:
        reason = value.get("stop_reason") or _get(value.get("delta"), "stop_reason")
        if reason:
            self.reason = str(reason)
        block = value.get("content_block")
        blocks = value.get("content") or _get(value.get("message"), "content")
        for each in (block, *(blocks if isinstance(blocks, list) else ())):
            self.has_call |= _get(each, "type") == "tool_use"
        if value.get("type") == "message_stop":
            self.has_mark = self.is_over = True

    def _responses(self, value: dict[str, Any]) -> None:
        self.has_call |= _get(value.get("item"), "type") == "function_call"
        if str(value.get("type")) in _LAST_RESPONSE_EVENTS:
            details = _get(value.get("response"), "incomplete_details")
            self.reason = str(_get(details, "reason") or "completed")
            self.has_mark = self.is_over = True


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None
