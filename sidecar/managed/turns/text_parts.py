"""What the model says and thinks in one turn: parts become messages, deltas become previews.

Deltas of text and of reasoning look alike (`field: "text"` for both); only the part says which it is. A
message is made from the finished part, so identical fragments cannot be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.managed.events.event import Draft, Preview, to_json
from sidecar.managed.turns.event_builders import Output

PARAGRAPH = "\n\n"
MIN_SPLIT_CHARS = 400
"""A split message has at least this length: LAP stores and reloads every event of a session."""


@dataclass(slots=True)
class _Part:
    type: Literal["agent.message", "agent.thinking"]
    event_id: str
    text: str = ""
    """What came by deltas."""
    shown: int = 0
    """Characters of it that went out as previews."""
    emitted: int = 0
    """Characters of it that went out in split messages."""


class TextParts:
    """The text and reasoning parts of one turn. `is_split` emits long texts paragraph by paragraph."""

    def __init__(self, *, new_id: Callable[[], str], is_split: bool = False) -> None:
        self._new_id = new_id
        self._is_split = is_split
        self._parts: dict[str, _Part] = {}
        self._open: set[str] = set()
        self._finished: set[str] = set()
        self._messages = 0

    @property
    def has_open(self) -> bool:
        """Whether something that began has not ended."""
        return bool(self._open)

    def void_open(self) -> None:
        """What a failed request left half-said never ends."""
        self._open.clear()

    def update(self, out: Output, part: Mapping[str, Any]) -> None:
        """Take a `text` or `reasoning` part as it is now."""
        if part["id"] in self._finished:
            return
        known = self._parts.get(part["id"])
        if known is None:
            type_: Literal["agent.message", "agent.thinking"] = (
                "agent.message" if part["type"] == "text" else "agent.thinking"
            )
            known = self._parts[part["id"]] = _Part(type_, self._announced(out, type_))
            self._open.add(part["id"])
        if (part.get("time") or {}).get("end") is None:
            return
        self._finished.add(part["id"])
        self._open.discard(part["id"])
        if known.type == "agent.thinking":
            out.drafts.append(Draft(known.type, {}, known.event_id))
        else:
            self._message(out, known, (part.get("text") or "")[known.emitted :])

    def delta(self, out: Output, properties: Mapping[str, Any]) -> None:
        """Take a fragment: a preview, and with `is_split` perhaps a message."""
        part = self._parts.get(properties["partID"])
        if part is None or part.type != "agent.message" or properties.get("field") != "text":
            return
        part.text += properties["delta"]
        if self._is_split:
            self._split(out, part)
        _show(out, part, len(part.text))

    def _split(self, out: Output, part: _Part) -> None:
        end = part.text.rfind(PARAGRAPH, part.emitted)
        is_in_code = part.text[:end].count("```") % 2
        if end - part.emitted < MIN_SPLIT_CHARS or is_in_code:
            return
        _show(out, part, end)
        self._message(out, part, part.text[part.emitted : end])
        part.shown = part.emitted = end + len(PARAGRAPH)
        part.event_id = self._announced(out, part.type)

    def _message(self, out: Output, part: _Part, text: str) -> None:
        if not text.strip():
            return
        self._messages += 1
        # LAP joins messages without a separator and prefers `text`; `content` stays as the model wrote it.
        joined = text if self._messages == 1 else f"{PARAGRAPH}{text}"
        fields = {"content": [{"type": "text", "text": text}], "text": joined}
        out.drafts.append(Draft(part.type, fields, part.event_id))

    def _announced(self, out: Output, type_: str) -> str:
        event_id = self._new_id()
        start = {"type": "event_start", "event": {"type": type_, "id": event_id}}
        out.previews.append(Preview(type_, event_id, "event_start", to_json(start)))
        return event_id


def _show(out: Output, part: _Part, end: int) -> None:
    # The finished text has no blanks at its end, and a preview must be a prefix of it.
    text = part.text[part.shown : end].rstrip()
    if not text:
        return
    part.shown += len(text)
    content = {"type": "text", "text": text}
    delta = {"type": "content_delta", "index": 0, "content": content}
    body = {"type": "event_delta", "event_id": part.event_id, "delta": delta}
    out.previews.append(Preview(part.type, part.event_id, "event_delta", to_json(body)))
