"""One request of the child on its way, and what is known of it so far."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from sidecar.gateway.streams.facts import AnswerFacts, Wire, wire_of
from sidecar.model_requests import RequestFailure, Usage
from sidecar.wire.json_text import read_leniently

_MODEL_IN_FRONT = re.compile(rb'\s*\{\s*"model"\s*:\s*"([^"\\]+)"')


@dataclass(slots=True)
class Call:
    """One request on its way, and what is known of it so far."""

    path: str
    """Below `/v1/`."""
    body: bytes | bytearray
    traceparent: str | None = None
    """What the gateway gets in place of the child's own."""
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    """Seconds from the start."""
    status: int = 0
    failure: RequestFailure | None = None
    facts: AnswerFacts | None = None
    is_streamed: bool = False
    repaired_frames: int = 0
    """How many frames of the answer were not passed as they came."""

    @property
    def wire(self) -> Wire:
        """The wire format."""
        return wire_of(self.path)

    @property
    def model(self) -> str:
        """The model that the body names, empty when none. Model clients name it first: a prompt of
        megabytes is not parsed for it."""
        in_front = _MODEL_IN_FRONT.match(self.body)
        if in_front is not None:
            return in_front[1].decode("utf-8", "replace")
        return str(self._parsed().get("model") or "")

    @property
    def wants_stream(self) -> bool:
        """Whether the body asks for events."""
        return self._parsed().get("stream") is True

    @property
    def usage(self) -> Usage | None:
        """What the answer says of it."""
        return self.facts.usage if self.facts is not None else None

    @property
    def is_progress(self) -> bool:
        """Whether the answer brings its turn on: it has a tool call, or it is a finished message."""
        if self.failure is not None or self.facts is None:
            return self.failure is not None and self.failure.kind == "refusal"
        return self.facts.is_progress or not self.is_streamed

    def note_first_byte(self) -> None:
        """The first byte of the body is here."""
        if self.first_byte is None:
            self.first_byte = time.perf_counter() - self.started

    def _parsed(self) -> dict[str, Any]:
        try:
            value = read_leniently(self.body) if self.body else None
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}
