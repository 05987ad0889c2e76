"""Repairs chat completion chunks that the AI SDK inside opencode cannot read.

What it can read: the chunk schema of `@ai-sdk/openai-compatible` in opencode 1.18.33. One chunk that does
not match ends the whole answer with an error; a `finish_reason` that it does not know makes opencode ask
the model again, at once and without end.
"""

from __future__ import annotations

import json
from typing import Any

from sidecar.gateway.streams.facts import FILTERS, LIMITS, is_reason, plain_reason
from sidecar.gateway.streams.tool_calls import ToolCalls
from sidecar.gateway.streams.whole_texts import TextSoFar
from sidecar.gateway.usage import repaired_counts
from sidecar.wire.scalars import read_number

_REASONS = frozenset({"stop", "length", "content_filter", "function_call", "tool_calls"})
_SYNONYMS = {
    **dict.fromkeys(LIMITS, "length"),
    **dict.fromkeys(FILTERS, "content_filter"),
}
_STRINGS = ("id", "model")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_THOUGHTS = ("reasoning_content", "reasoning")
"""Where a delta has its reasoning; opencode reads the first that there is."""


class ChatRepair:
    """Keeps what must be known of one answer. `repair` is given every chunk, in order."""

    def __init__(self) -> None:
        self._calls = ToolCalls()
        self._text = TextSoFar()
        self._thought = TextSoFar()
        self._is_changed = False

    def repair(self, value: dict[str, Any], _event: str) -> list[dict[str, Any]] | None:
        """Return what to send in place of the chunk, None to send it as it came. Changes `value`."""
        if value.get("error"):
            return None
        self._is_changed = False
        self._keep(value, _STRINGS, str)
        created = value.get("created")
        if created is not None and (isinstance(created, str) or read_number(created) is None):
            self._set(value, "created", read_number(created))
        self._usage(value)
        choices = value.get("choices")
        if isinstance(choices, dict):
            choices = [choices]
            self._set(value, "choices", choices)
        if not isinstance(choices, list):
            self._set(value, "choices", [])
        elif not all(isinstance(choice, dict) for choice in choices):
            self._set(value, "choices", [each for each in choices if isinstance(each, dict)])
        for choice in value["choices"]:
            self._choice(choice)
        return [value] if self._is_changed else None

    def _set(self, holder: dict[str, Any], name: str, value: Any) -> None:
        holder[name] = value
        self._is_changed = True

    def _keep(self, holder: dict[str, Any], names: tuple[str, ...], kind: type) -> None:
        """Set fields to null that are neither null nor of that kind."""
        for name in names:
            value = holder.get(name)
            if value is not None and not isinstance(value, kind):
                self._set(holder, name, None)

    def _usage(self, value: dict[str, Any]) -> None:
        self._keep(value, ("usage",), dict)
        usage = value.get("usage")
        if usage is None:
            return
        self._keep(usage, _DETAILS, dict)
        for holder in (usage, *(usage.get(name) or {} for name in _DETAILS)):
            for name, count in repaired_counts(holder).items():
                self._set(holder, name, count)

    def _choice(self, choice: dict[str, Any]) -> None:
        self._keep(choice, ("delta",), dict)
        delta = choice.get("delta")
        if delta is not None:
            self._delta(delta)
        whole = self._unsent(choice, has_delta=bool(delta))
        if whole:
            delta = _joined(delta or {}, whole)
            self._set(choice, "delta", delta)
        reason = choice.get("finish_reason")
        if reason is None:
            return
        if not is_reason(reason):
            self._set(choice, "finish_reason", None)
            return
        if nameless := self._calls.take_nameless():
            delta = delta if delta is not None else {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or []), *nameless]
            self._set(choice, "delta", delta)
        known = self._reason(reason)
        if known != reason:
            self._set(choice, "finish_reason", known)

    def _unsent(self, choice: dict[str, Any], *, has_delta: bool) -> dict[str, Any]:
        """Return as a delta what a choice has where answers that are no streams have it, and what was not
        passed on yet: `message` may hold all that was written so far."""
        message, text = choice.get("message"), choice.get("text")
        if not isinstance(message, dict):
            if has_delta or not isinstance(text, str) or not text:
                return {}
            self._text.add(text)
            return {"content": text}
        thoughts = (_text_of(message.get(name)) for name in _THOUGHTS)
        unsent: dict[str, Any] = {
            "reasoning_content": self._thought.take(next(filter(None, thoughts), "")),
            "content": self._text.take(
                _text_of(message.get("content")) or _text_of(message.get("refusal"))
            ),
        }
        calls = _calls_in(message)
        taken = [self._calls.take_whole(place, each) for place, each in enumerate(calls)]
        unsent["tool_calls"] = [each for each in taken if each is not None]
        return {name: value for name, value in unsent.items() if value}

    def _reason(self, reason: str) -> str:
        plain = plain_reason(reason)
        known = reason if reason in _REASONS else _SYNONYMS.get(plain, plain)
        has_calls = not self._calls.is_empty
        if known in {"tool_calls", "function_call"} and not has_calls:
            return "stop"  # opencode would ask again, for there is nothing to wait for
        if known not in _REASONS:
            return "tool_calls" if has_calls else "stop"
        return known

    def _delta(self, delta: dict[str, Any]) -> None:
        if delta.get("role") is not None and delta["role"] != "assistant":
            self._set(delta, "role", "assistant")
        for name in ("content", *_THOUGHTS):
            if delta.get(name) is not None and not isinstance(delta[name], str):
                self._set(delta, name, _text_of(delta[name]))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal and not delta.get("content"):
            self._set(delta, "content", refusal)  # opencode would show nothing
        self._text.add(delta.get("content") or "")
        self._thought.add(next((delta[n] for n in _THOUGHTS if delta.get(n) is not None), ""))
        fragments = delta.get("tool_calls")
        if not fragments and isinstance(delta.get("function_call"), dict):
            fragments = _calls_in(delta)  # the form of 2023
            del delta["function_call"]
            self._set(delta, "tool_calls", fragments)
        if fragments is None:
            return
        if not isinstance(fragments, list):
            fragments = [fragments]
            self._is_changed = True
        taken = [self._calls.take(each) for each in fragments if isinstance(each, dict)]
        kept = [each for each in taken if each is not None]
        if len(kept) != len(fragments) or any(
            new is not old for new, old in zip(kept, fragments, strict=True)
        ):
            self._set(delta, "tool_calls", kept)


def _calls_in(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of a message, or of a delta in the form of 2023."""
    calls, call = message.get("tool_calls"), message.get("function_call")
    calls = calls if isinstance(calls, list) else [calls]
    calls = [each for each in calls if isinstance(each, dict)]
    return calls or ([{"index": 0, "function": call}] if isinstance(call, dict) else [])


def _joined(delta: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return a delta with what else its chunk has; texts and lists are put together."""
    return {**delta, **{n: delta[n] + v if delta.get(n) else v for n, v in more.items()}}


def _text_of(content: Any) -> str:
    """Return the text of content that may have come as parts, as Mistral's reasoning models send it, or as
    a number."""
    parts = content if isinstance(content, list) else [content]
    texts = (each.get("text") if isinstance(each, dict) else each for each in parts)
    return "".join(
        text if isinstance(text, str) else json.dumps(text)
        for text in texts
        if isinstance(text, (str, int, float))
    )
