"""Server-sent events as bytes, in any split of the network.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. A frame
ends with a blank line; lines end with LF, CR LF or CR.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.gateway.streams.text_runs import TextRun

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""A frame is held until it is complete. The largest known, the last event of the Responses API, repeats
the whole answer."""

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r)")
"""A blank line is known at its CR: a gateway that keeps the connection open sends no more. An LF that still
comes begins the next frame, where it is another blank line."""
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONE_RETURN = re.compile(rb"\r(?![\n]|\Z)")
_BOM = b"\xef\xbb\xbf"
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")
_LONGEST_FIELD = len(b"\xef\xbb\xbfevent:")
DONE = b"[DONE]"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_LENIENT = json.JSONDecoder(strict=False)


class FrameTooLongError(ValueError):
    """A frame is larger than `MAX_FRAME_BYTES`."""


class FrameSplitter:
    """Cuts bytes into frames. The frames, joined, are exactly what was added."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._begin = 0
        """Of what was not taken yet."""
        self._searched = 0
        self._has_returns = False

    def add(self, chunk: bytes) -> None:
        """Add bytes."""
        if self._begin:
            del self._held[: self._begin]
            self._searched = max(0, self._searched - self._begin)
            self._begin = 0
        self._held += chunk
        self._has_returns = self._has_returns or b"\r" in chunk

    def next(self) -> bytes | None:
        """Take the next frame, with its blank line; None when it is not complete yet.

        Raises FrameTooLongError.
        """
        # A line end that was cut in two may begin up to three bytes before what is new.
        end = self._end(max(self._begin, self._searched - 3))
        if end < 0:
            self._searched = len(self._held)
            if self.held_bytes > MAX_FRAME_BYTES:
                raise FrameTooLongError
            return None
        return self._take(end)

    def take_run(self, run: TextRun) -> bytes:
        """Take the frames of a run; empty when the next one is another."""
        return self._take(run.end(self._held, self._begin))

    @property
    def held_bytes(self) -> int:
        """Size of what was not taken yet."""
        return len(self._held) - self._begin

    def rest(self) -> bytes:
        """Take what is left at the end of the stream: a frame without its blank line, or nothing."""
        return self._take(len(self._held))

    def _end(self, begin: int) -> int:
        if self._has_returns:
            match = _END.search(self._held, begin)
            return match.end() if match is not None else -1
        found = self._held.find(b"\n\n", begin)  # ten times faster
        return found + 2 if found >= 0 else -1

    def _take(self, end: int) -> bytes:
        taken = bytes(self._held[self._begin : end])
        self._begin = self._searched = end
        return taken


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its bytes, its event name, its data, and the JSON object that the data is.

    `kind` is `comment` for a frame without data, `done` for `[DONE]`, `object` for a JSON object, `text`
    for data that is none, `broken` for what begins as a JSON object and is none, and `deep` for JSON that
    is nested too deeply to be read here. `is_strict` is False for an object that only Python reads: with
    `NaN`, raw control characters in strings, or bytes that are not UTF-8.
    """

    raw: bytes
    kind: Literal["comment", "done", "object", "text", "broken", "deep"]
    event: str = ""
    value: dict[str, Any] | None = None
    is_strict: bool = True


def with_line_feeds(raw: bytes) -> bytes | None:
    """Return a frame whose lines end with CR alone with LF instead, None for all others.

    The reader inside opencode takes the CR at the end of what it was given for the half of a CR LF, and so
    never reads the last frame.
    """
    return _LINE_END.sub(b"\n", raw) if _LONE_RETURN.search(raw) else None


def read_frame(raw: bytes) -> Frame:
    """Read one frame."""
    event, data = "", []
    lines = raw.removeprefix(_BOM)
    for line in lines.split(b"\n") if b"\r" not in lines else _LINE_END.split(lines):
        if line.startswith(b"data:"):
            data.append(line[5:])
        elif line.startswith(b"event:"):
            event = line[6:].strip().decode("utf-8", "replace")
    if not data:
        return Frame(raw, "comment", event)
    text = b"\n".join(data).strip()
    if text == DONE:
        return Frame(raw, "done", event)
    is_strict = True
    try:
        value = _STRICT.decode(text.decode())
    except RecursionError:
        return Frame(raw, "deep", event)
    except ValueError:
        is_strict = False
        try:
            value = _LENIENT.decode(text.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return Frame(raw, "broken" if text.startswith(b"{") else "text", event)
    if not isinstance(value, dict):
        return Frame(raw, "text", event)
    return Frame(raw, "object", event, value, is_strict)


def separate(raw: bytes) -> list[bytes]:
    """Return the frames of a gateway that ends each event with one line end instead of two.

    Empty unless every line of data is an event by itself.
    """
    frames: list[bytes] = []
    head: list[bytes] = []
    for line in _LINE_END.split(raw):
        if line.startswith(b"data:"):
            frames.append(b"\n".join([*head, line]) + b"\n\n")
            head = []
        elif line:
            head.append(line)
    is_each = len(frames) > 1 and all(read_frame(f).kind in {"object", "done"} for f in frames)
    return frames if is_each else []


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
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"))
    return head + b"data: " + text.encode() + b"\n\n"


def _finite(value: Any) -> Any:
    """Return the value with null for each number that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
