"""Which past events a new stream gets.

LAP has four kinds of readers, and nothing in a request says which one it is:

- the drain opens right after its prompt was accepted; a fast turn may be over by then;
- the channel opens before its prompt, posts at once, and reads only after the turn;
- the late reader comes after the turn was read once, and wants it again;
- the browser stays open over many turns.

None of the first three has a time-out: each must get its own turn to the end, and none an older one.
The rule:

1. an open turn is replayed from its start;
2. a finished turn is replayed to every reader that comes soon after it, after a pause in which a prompt may
   come: the reader was a channel then, and gets its own turn only;
3. anything else is live only.

The pause is a moment, as a channel posts at once. It is longer after a turn that a channel seems to have
read (a stream was opened for it alone, before it began, and left after its end, and another was opened
since): the next reader is a channel again then, and a late reader only if that stream was a page that was
closed. No rule can do better: until the prompt comes, a channel and a late reader look the same.

Official SDKs read open streams only (their documented use is open, then send), and a loop that stops at
`session.status_idle` would stop at a replayed one: the caller passes `replay_finished=False` for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class OpenStream:
    """One open stream."""

    after: int
    """The number of the event after which it is served."""
    replay_after: int | None = None
    """The same, if no turn begins in the next moment."""
    turn: int = 0
    """The first event of the turn that was the latest when it opened."""
    turns: int = 0
    """How many turns it has seen, the one included during which it opened."""
    is_after_channel: bool = False
    """Whether a channel seems to have read the turn that would be replayed."""
    next_turn: asyncio.Event = field(default_factory=asyncio.Event)

    async def settle(self, pause_seconds: float, channel_pause_seconds: float) -> int:
        """Return the number after which the stream is served, once that is certain."""
        if self.replay_after is None:
            return self.after
        seconds = channel_pause_seconds if self.is_after_channel else pause_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.next_turn.wait()
        return self.after if self.next_turn.is_set() else self.replay_after


@dataclass(slots=True)
class ReplayPolicy:
    """Who has read the latest turn of one session. In memory only: a restart ends all streams."""

    turn_first_seq: int = 0
    turn_ended: float | None = None
    attached: int = 0
    """Streams opened since the turn began."""
    has_channel_left: bool = False
    """Whether a stream that was opened for this turn alone, before it began, left after its end."""
    last_left: float = 0.0
    """When a stream left last."""
    open_streams: set[OpenStream] = field(default_factory=set)
    """The streams that are open now."""

    def turn_began(self, first_seq: int) -> None:
        """A turn begins with the event of that number."""
        self.turn_first_seq = first_seq
        self.turn_ended = None
        self.attached = 0
        self.has_channel_left = False
        for stream in self.open_streams:
            stream.turns += 1
            stream.next_turn.set()

    def turn_finished(self) -> None:
        """The turn's terminal event was written."""
        self.turn_ended = time.monotonic()

    def join(
        self, *, last_seq: int, is_paused: bool, grace_seconds: float, replay_finished: bool
    ) -> OpenStream:
        """Count a stream that opens now, until `leave`; return where it begins.

        A turn that waits for the client has shown an idle event: it counts as finished for readers
        that want no replay of those, and as open for the others.
        """
        is_turn_open = bool(self.turn_first_seq) and self.turn_ended is None
        stream = OpenStream(last_seq, turn=self.turn_first_seq, turns=int(is_turn_open))
        if self.turn_first_seq and not (is_paused and not replay_finished):
            self._place(stream, grace_seconds, replay_finished)
        self.attached += 1
        self.open_streams.add(stream)
        return stream

    def leave(self, stream: OpenStream) -> None:
        """A stream was closed."""
        self.open_streams.discard(stream)
        self.last_left = time.monotonic()
        is_early = stream.turn != self.turn_first_seq
        if self.turn_ended is not None and is_early and stream.turns == 1:  # a page sees many turns
            self.has_channel_left = True

    def is_needed(self, grace_seconds: float) -> bool:
        """Return whether what is known here matters to a stream that is open or may open soon."""
        return bool(self.open_streams) or self._is_recent(grace_seconds)

    def _place(self, stream: OpenStream, grace_seconds: float, replay_finished: bool) -> None:
        whole_turn = self.turn_first_seq - 1
        if self.turn_ended is None:
            stream.after = whole_turn
        elif replay_finished and self._is_recent(grace_seconds):
            stream.replay_after = whole_turn
            stream.is_after_channel = self.has_channel_left and self.attached > 0

    def _is_recent(self, grace_seconds: float) -> bool:
        if self.turn_ended is None:
            return False
        return time.monotonic() - max(self.turn_ended, self.last_left) <= grace_seconds
