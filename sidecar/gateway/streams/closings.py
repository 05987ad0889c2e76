"""Holds what closes a part of an answer back until it is certain that the answer goes on, or is complete.

opencode takes a closed text for said and runs a closed tool call. If the answer then proves broken it asks
again, and the same half answer is shown once for each try.
"""

from __future__ import annotations

from typing import Any

from sidecar.gateway.error_status import is_final, status_of
from sidecar.gateway.streams.facts import Wire

_CLOSING: dict[Wire, frozenset[str]] = {
    "messages": frozenset({"content_block_stop", "message_delta"}),
    "responses": frozenset({"response.output_item.done"}),
}
"""On the chat wire nothing is closed before the terminal mark."""


class Closings:
    """Is given the frames of one answer, in order, as they would be passed on."""

    def __init__(self, wire: Wire) -> None:
        self._closing = _CLOSING.get(wire, frozenset())
        self._held = b""

    def pass_on(self, value: dict[str, Any] | None, frames: bytes) -> bytes:
        """Return what to pass on now; `value` is the object of the frames, None where they have none.

        What is held is dropped before an error after which opencode asks again. Signs of life are not held.
        """
        kind = str(value.get("type")) if value is not None else "ping"
        if kind in self._closing:
            self._held += frames
            return b""
        if kind == "ping":
            return frames
        held, self._held = self._held, b""
        if kind == "error" and not _is_final(value):
            return frames
        return held + frames


def _is_final(value: dict[str, Any] | None) -> bool:
    error = value.get("error") if value is not None else None
    return isinstance(error, dict) and is_final(status_of(error))
