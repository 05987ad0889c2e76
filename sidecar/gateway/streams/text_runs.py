"""Runs of frames that are alike but for their text, which is nearly all that a long answer consists of.

Once one such frame was read, and passed as it came, the next ones of the same bytes around another text need
not be parsed: the same would be found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sidecar.gateway.streams.facts import Wire

_STRING = re.compile(
    rb"""(?:
      [^"\\\x00-\x1f\x80-\xff]++
    | \\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})
    | [\xc2-\xdf][\x80-\xbf]
    | \xe0[\xa0-\xbf][\x80-\xbf] | \xed[\x80-\x9f][\x80-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf]{2}
    | \xf0[\x90-\xbf][\x80-\xbf]{2} | \xf4[\x80-\x8f][\x80-\xbf]{2} | [\xf1-\xf3][\x80-\xbf]{3}
    )++""",
    re.VERBOSE,
)
"""The inside of a JSON string, not empty, in UTF-8."""

_CHAT_TEXTS = ("content", "reasoning_content", "reasoning")
_MESSAGE_TEXTS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
_HELD_OTHERWISE = ("usage", "error", "message", "response")
"""Members of a chunk that say more than its text."""


@dataclass(frozen=True, slots=True)
class TextRun:
    """What stands before and after the text: from the beginning of the frame to its last line end."""

    before: bytes
    after: bytes

    def end(self, held: bytearray, begin: int) -> int:
        """Return where the frames of the run that begin at `begin` end: at `begin` when there are none."""
        while held.startswith(self.before, begin):
            text = begin + len(self.before)
            # It ends in a blank line, which no string holds: this is the end of the frame.
            after = held.find(self.after, text)
            if after < 0 or not _STRING.fullmatch(held, text, after):
                break
            begin = after + len(self.after)
        return begin


def text_run(wire: Wire, raw: bytes, value: dict[str, Any]) -> TextRun | None:
    """Return the run that a frame begins, None when it is more than a piece of text.

    The frame has passed as it came: with another text it would again, and nothing else would be known then.
    It holds as long as no other frame comes between.
    """
    name = _text_in_chat(value) if wire == "chat" else _text_in_message(value)
    if name is None:
        return None
    # In a string the quotes would be escaped, so this can only be the member; it must be the only one.
    found = re.findall(rb'"%b":\s*"' % name.encode(), raw)
    if len(found) != 1:
        return None
    begin = raw.index(found[0]) + len(found[0])
    text = _STRING.match(raw, begin)
    return TextRun(raw[:begin], raw[text.end() :]) if text is not None else None


def _text_in_chat(value: dict[str, Any]) -> str | None:
    choices = value.get("choices")
    if not (isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict)):
        return None
    choice = choices[0]
    delta = choice.get("delta")
    says_more = (
        choice.get("finish_reason")
        or choice.get("error")
        or value.get("type") is not None
        or any(value.get(name) is not None for name in _HELD_OTHERWISE)
    )
    if says_more or not isinstance(delta, dict):
        return None
    if delta.get("tool_calls") is not None or delta.get("function_call") is not None:
        return None
    return next((name for name in _CHAT_TEXTS if delta.get(name)), None)


def _text_in_message(value: dict[str, Any]) -> str | None:
    delta = value.get("delta")
    if value.get("type") != "content_block_delta" or not isinstance(delta, dict):
        return None
    if delta.get("stop_reason") or any(value.get(name) is not None for name in _HELD_OTHERWISE):
        return None
    return _MESSAGE_TEXTS.get(str(delta.get("type")))
