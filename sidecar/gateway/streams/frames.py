"""Server-sent events as bytes, in any split of the network.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. A frame
ends with a blank line; lines end with LF, CR LF or CR.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""A frame is held until it is complete. The largest known, the last event of the Responses API, repeats
the whole answer."""

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")
_LONGEST_FIELD = len(b"\xef\xbb\xbfevent:")
DONE = b"[DONE]"


class FrameTooLongError(ValueError):
    """A frame is larger than `MAX_FRAME_BYTES`."""


class FrameSplitter:
    """Cuts bytes into frames. The frames, joined, are exactly what was fed."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that are complete now, each with its blank line. Raises FrameTooLongError."""
        held = self._held
        held += chunk
        frames, begin = [], 0
        # A line end that was cut in two may begin up to three bytes before what is new.
        for end in _END.finditer(held, max(0, self._searched - 3)):
            frames.append(bytes(held[begin : end.end()]))
            begin = end.end()
        if begin:
            del held[:begin]
        self._searched = len(held)
        if self._searched > MAX_FRAME_BYTES:
            raise FrameTooLongError
        return frames

    def rest(self) -> bytes:
        """Return what is left at the end of the stream: a frame without its blank line, or nothing."""
        rest = bytes(self._held)
        self._held.clear()
        self._searched = 0
        return rest


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its bytes, its event name, its data, and the JSON object that the data is.

    `kind` is `comment` for a frame without data, `done` for `[DONE]`, `object` for a JSON object, `text`
    for data that is none, and `deep` for JSON that is nested too deeply to be read here.
    """

    raw: bytes
    kind: Literal["comment", "done", "object", "text", "deep"]
    event: str = ""
    value: dict[str, Any] | None = None


def read_frame(raw: bytes) -> Frame:
    """Read one frame."""
    event, data = "", []
    for line in raw.split(b"\n") if b"\r" not in raw else _LINE_END.split(raw):
        if line.startswith(b"data:"):
            data.append(line[5:])
        elif line.startswith(b"event:"):
            event = line[6:].strip().decode("utf-8", "replace")
    if not data:
        return Frame(raw, "comment", event)
    text = b"\n".join(data).strip()
    if text == DONE:
        return Frame(raw, "done", event)
    try:
        value = json.loads(text)
    except RecursionError:
        return Frame(raw, "deep", event)
    except ValueError:
        return Frame(raw, "text", event)
    if not isinstance(value, dict):
        return Frame(raw, "text", event)
    return Frame(raw, "object", event, value)


def looks_like_events(beginning: bytes) -> bool | None:
    """Return whether a body that begins so is an event stream; None when more bytes are needed."""
    if _BEGINNING.match(beginning):
        return True
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    fields = (b"data:", b"event:", b"id:", b"retry:")
    if len(start) < _LONGEST_FIELD and any(field.startswith(start) for field in fields):
        return None
    return False


def write_frame(value: dict[str, Any], *, is_named: bool) -> bytes:
    """Make a frame; `is_named` puts the object's type into its `event:` line."""
    head = b"event: " + str(value["type"]).encode() + b"\n" if is_named else b""
    return head + b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
