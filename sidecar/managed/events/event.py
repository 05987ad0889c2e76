"""An event of a session: as a draft, as it is stored, as it is shown. Pure: no clock, no store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.wire.json_text import storable
from sidecar.wire.json_writing import json_bytes, write_json

IDLE = "session.status_idle"
_FRAME_END = b"\n\n"
_LARGE_CHARS = 64 * 1024
LONG_CHARS = 1024 * 1024
"""From here on the fields of an event are not kept beside its text, and that may be UTF-8 and not ASCII."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to be appended. `id` is given when it was announced before (previews, queued events)."""

    type: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Empty once a large one was written down, see `let_go`."""
    id: str | None = None

    def let_go(self) -> None:
        """Drop the fields: the event has them as text, and the store will need three times their size."""
        object.__setattr__(self, "fields", {})

    @property
    def ends_turn(self) -> bool:
        """Whether it ends a turn for good: idle, and not to wait for the client."""
        stop = self.fields.get("stop_reason") if self.type == IDLE else None
        return stop is not None and stop["type"] != "requires_action"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Event:
    """A persisted event."""

    seq: int
    id: str
    type: str
    processed_us: int
    _text: str | None
    """None once there is a frame which is large: that has the text, too."""
    ends_turn: bool = False
    """As its draft says; not read back."""
    _frame: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """Its JSON object, one line; ASCII unless it is long."""
        text = self._text
        return str(self.encoded, "utf-8") if text is None else text

    @property
    def size(self) -> int:
        """The length of its text, in bytes where it is long."""
        text = self._text
        return len(self.encoded) if text is None else len(text)

    @property
    def body(self) -> dict[str, Any]:
        """The event as an object."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    @property
    def frame(self) -> bytes:
        """The event as one server-sent-events frame, encoded once for all readers.

        A long one may be UTF-8; what is sent is ASCII, see `http.streaming`.
        """
        text = self._text  # read first: another thread may be here, too
        if self._frame is None:
            assert text is not None
            object.__setattr__(self, "_frame", sse_frame(self.type, text))
            if len(text) > _LARGE_CHARS:
                object.__setattr__(self, "_text", None)
        assert self._frame is not None
        return self._frame

    @property
    def encoded(self) -> memoryview:
        """The event as JSON: a part of its frame, which is not copied."""
        return memoryview(self.frame)[len(_frame_head(self.type)) : -len(_FRAME_END)]

    @property
    def column(self) -> str | memoryview:
        """Its JSON for `Connection.text`: not copied where it is long."""
        return self.encoded if self._text is None else self._text


@dataclass(frozen=True, slots=True)
class Preview:
    """A frame that is shown to those who asked for it and never stored."""

    kind: str
    """`agent.message` or `agent.thinking`: what `event_deltas[]` selects."""
    event_id: str
    """The event that is being previewed."""
    type: str
    """`event_start` or `event_delta`."""
    text: str

    @property
    def frame(self) -> bytes:
        """The preview as one server-sent-events frame."""
        return sse_frame(self.type, self.text)


def sse_frame(type_: str, text: str) -> bytes:
    """Return one frame. SDKs drop frames without `event:`."""
    return b"".join((_frame_head(type_), text.encode(), _FRAME_END))


def long_frame(type_: str, body: Mapping[str, Any]) -> bytes:
    """Return the same of an object that is long; it is in memory once, in ASCII or in UTF-8."""
    return json_bytes(body, before=_frame_head(type_), after=_FRAME_END)


def _frame_head(type_: str) -> bytes:
    return f"event: {type_}\ndata: ".encode("ascii")


def to_json(body: Mapping[str, Any]) -> str:
    """Return one line of ASCII JSON that every client can store, see `json_text.storable`."""
    return write_json(body)


def from_row(seq: int, id_: str, type_: str, processed_us: int, text: str) -> Event:
    """Return a stored event. Earlier versions stored text that clients cannot."""
    return Event(seq, id_, type_, processed_us, storable(text))
