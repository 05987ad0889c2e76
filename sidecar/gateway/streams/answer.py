"""One streamed answer on its way to the child: passed frame by frame, read, and repaired where it must be.

A frame that needs nothing passes byte for byte. A stream that ends without its terminal mark is not an
answer: opencode would ask the model again at once and without end, so the caller ends it with an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sidecar.gateway.error_status import is_final, is_too_long, status_of
from sidecar.gateway.streams.chat import ChatRepair
from sidecar.gateway.streams.closings import Closings
from sidecar.gateway.streams.facts import TERMINAL_MARK, AnswerFacts, Wire, error_in, interruption
from sidecar.gateway.streams.formats import describe_mismatch, format_of, is_preamble
from sidecar.gateway.streams.frames import (
    Frame,
    FrameSplitter,
    looks_like_events,
    read_frame,
    separate,
    with_line_feeds,
    write_frame,
)
from sidecar.gateway.streams.messages import MessagesRepair
from sidecar.gateway.streams.responses import ResponsesRepair
from sidecar.gateway.streams.text_runs import TextRun, text_run
from sidecar.wire.opencode_retries import without_retry_words

_KEPT_BEGINNING_BYTES = 512
_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """Why what came is not an answer. opencode decides by the words of the message whether it tries again."""

    kind: Literal["incomplete", "wrong_format"]
    message: str


class Repair(Protocol):
    """Repairs the objects of one answer."""

    def repair(self, value: dict[str, Any], event: str, /) -> list[dict[str, Any]] | None:
        """Return what to send in place of the object, None to send it as it came."""


class AnswerStream:
    """Takes the bytes of an event stream and returns those to pass on.

    `facts` is what the answer said so far; `repaired_frames` counts the frames that were not passed as
    they came.
    """

    def __init__(self, wire: Wire, *, is_repaired: bool) -> None:
        self.facts = AnswerFacts(wire)
        self.repaired_frames = 0
        self.beginning = b""
        """Of what was received, for the message about a body that is no event stream."""
        self.pieces = 0
        """How often something of the answer itself was received, about: a stream may live long without."""
        self.fault: Fault | None = None
        """Why the answer is broken although the stream goes on; nothing more is passed on then."""
        self._run: TextRun | None = None
        """The text frames that may pass without being parsed, as the last one did."""
        self._is_recognised = False
        self._wire = wire
        self._frames = FrameSplitter()
        self._is_repaired = is_repaired
        self._repair = _repair_of(wire) if is_repaired else None
        self._closings = Closings(wire if is_repaired else "other")

    @property
    def has_begun(self) -> bool:
        """Whether anything of the answer itself was received."""
        return self.pieces > 0

    @property
    def has_terminal_mark(self) -> bool:
        """Whether the mark that this wire format has was seen."""
        return self._wire in TERMINAL_MARK and self.facts.has_mark

    @property
    def missing(self) -> str | None:
        """What the ended stream lacks to be a complete answer, None when it is one."""
        if self.facts.has_mark or self.facts.error is not None:
            return None
        return TERMINAL_MARK.get(self._wire)

    @property
    def is_event_stream(self) -> bool:
        """Whether what came so far may be an event stream."""
        return not self.beginning.strip() or looks_like_events(self.beginning) is not False

    @property
    def held_bytes(self) -> int:
        """Size of what was fed and is not complete yet."""
        return self._frames.held_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Return what to pass on now. Raises FrameTooLongError."""
        if len(self.beginning) < _KEPT_BEGINNING_BYTES:
            self.beginning += chunk[:_KEPT_BEGINNING_BYTES]
        passed = []
        self._frames.add(chunk)
        while not self._has_ended:
            if self._run is not None:
                run = self._frames.take_run(self._run)
                self.pieces += bool(run)
                passed.append(run)
            if (raw := self._frames.next()) is None:
                break
            passed.append(self._pass(raw))
        return b"".join(passed)

    def end(self) -> bytes:
        """The gateway ended the body: return what to pass on of the last frame, which may be incomplete.

        Without a blank line after it no client would read it.
        """
        rest = self._frames.rest()
        if self.facts.is_over or not rest:
            return b""
        frame = read_frame(rest)
        if frame.kind in {"object", "done"} or separate(rest):
            return self._pass(rest.rstrip(b"\r\n") + b"\n\n")
        return rest if frame.kind == "comment" else b""

    def _pass(self, raw: bytes) -> bytes:
        self._run = None
        if fed := with_line_feeds(raw) if self._is_repaired else None:
            raw = fed
        frame = read_frame(raw)
        if self._is_repaired and frame.kind in {"text", "broken"} and (frames := separate(raw)):
            self.repaired_frames += 1
            return b"".join(self._pass(each) for each in frames if not self._has_ended)
        self.fault = self._fault_of(frame)
        if self.fault is not None:
            return b""
        passed = self._repaired(frame)
        if passed is None:
            self._see(frame)
            self.repaired_frames += fed is not None
            if frame.value is not None and frame.is_strict:
                self._run = text_run(self._wire, raw, frame.value)
            return self._closings.pass_on(frame.value, raw)
        self.repaired_frames += 1
        return self._closings.pass_on(frame.value, passed)

    def _fault_of(self, frame: Frame) -> Fault | None:
        value = frame.value
        if value is None or self._wire == "other":
            return None
        if not self._is_recognised:
            came = format_of(value)
            if came not in {None, self._wire}:
                return Fault("wrong_format", describe_mismatch(self._wire, str(came)))
            self._is_recognised = came is not None
        if reason := interruption(self._wire, value):
            text = f"connection lost: the gateway broke the answer off ({reason})"
            return Fault("incomplete", text)
        return None

    @property
    def _has_ended(self) -> bool:
        return self.facts.is_over or self.fault is not None

    def _see(self, frame: Frame) -> None:
        if frame.kind == "done":
            self.facts.see_done()
        elif frame.value is not None:
            self._see_object(frame.value)
        else:
            self.pieces += frame.kind == "deep"

    def _see_object(self, value: dict[str, Any]) -> None:
        self.facts.see(value)
        if self.facts.error is None:
            self.pieces += not is_preamble(self._wire, value)

    def _repaired(self, frame: Frame) -> bytes | None:
        """Return what to send in place of a frame, None to send it as it came."""
        if not self._is_repaired or self._wire == "other":
            return None
        if frame.kind == "text":
            return b""  # text between the events, on which a reader of JSON would give up
        if frame.kind == "broken":
            if not self.facts.has_mark:  # to leave it out would lose text or a call
                shown = frame.raw[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
                text = f"connection lost: the gateway sent an event that is not JSON: {shown}"
                self.fault = Fault("incomplete", text)
            return b""
        value = frame.value
        if value is None:
            return None
        error = error_in(value, frame.event)
        if error is not None and self._wire != "responses":
            value = (
                {"type": "error", "error": error} if self._wire == "messages" else {"error": error}
            )
        values = self._repair.repair(value, frame.event) if self._repair is not None else None
        is_as_it_came = values is None and value is frame.value and _calm(value) is value
        if is_as_it_came and frame.is_strict:
            return None
        values = [value] if values is None else values
        for value in values:
            self._see_object(value)
        is_named = self._wire in {"messages", "responses"} and all("type" in v for v in values)
        return b"".join(write_frame(_calm(value), is_named=is_named) for value in values)


def _calm(value: dict[str, Any]) -> dict[str, Any]:
    """Return an error that trying again does not mend, in words for which opencode does not try again."""
    error = value.get("error")
    if value.get("type") == "error" and not error:  # the Responses API's has no `error` inside
        error = value
    if not isinstance(error, dict) or not is_final(status_of(error)) or is_too_long(error):
        return value
    calm = {n: without_retry_words(v) if isinstance(v, str) else v for n, v in error.items()}
    return calm if error is value else {**value, "error": calm}


def _repair_of(wire: Wire) -> Repair | None:
    match wire:
        case "chat":
            return ChatRepair()
        case "messages":
            return MessagesRepair()
        case "responses":
            return ResponsesRepair()
    return None
