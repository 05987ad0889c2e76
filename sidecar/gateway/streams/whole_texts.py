"""Texts that come in messages which hold all that was written so far. Pure."""

from __future__ import annotations


class TextSoFar:
    """One text of an answer, its content or its reasoning, as far as it was passed on.

    A gateway that sends `message` where `delta` belongs means one of two things by it: the next piece, or the
    whole text so far (DashScope). It is the whole as long as each message begins with what was passed on
    before it; from the first that does not, each is a piece. Many also send the whole once, at the end of
    deltas: after a delta with text no message adds to it.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._has_deltas = False
        self._are_pieces = False
        self._repeats = 0
        """How often the first message came again, which may have been pieces."""

    def add(self, text: str) -> None:
        """A delta was passed on. Those that follow may pass unread (`sidecar.gateway.streams.text_runs`)."""
        self._has_deltas |= bool(text)

    def take(self, text: str) -> str:
        """Return what a message has that was not passed on yet, which now is."""
        if self._has_deltas:
            return ""
        sent = "".join(self._parts)
        self._parts = [sent]
        new = text if self._are_pieces else self._new(sent, text)
        self._parts.append(new)
        return new

    def _new(self, sent: str, text: str) -> str:
        if text.startswith(sent):
            self._repeats = 0 if sent and len(text) > len(sent) else self._repeats + bool(sent)
            return text[len(sent) :]
        if not text:
            return ""
        self._are_pieces = True
        return sent * self._repeats + text
