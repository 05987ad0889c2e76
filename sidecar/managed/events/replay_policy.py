"""Which past events a new stream gets.

LAP opens its stream after the prompt was accepted, so a fast turn may be over by then; other readers of
LAP open one before the prompt, read it only after the turn, and must not see an older turn's end; a
third kind comes after the turn was read once. The rule:

1. an open turn is replayed from its start;
2. a finished turn that no stream saw is replayed to the first reader that comes soon after it;
3. one that exactly one stream saw is replayed once more, soon after that stream left;
4. anything else is live only.

Official SDKs read open streams only (their documented use is open, then send), and a loop that stops at
`session.status_idle` would stop at a replayed one: the caller passes `replay_finished=False` for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Attendance:
    """Who has read the latest turn of one session. In memory only: a restart ends all streams."""

    turn_first_seq: int = 0
    turn_ended: float | None = None
    attached: int = 0
    """Streams opened since the turn began."""
    open_now: int = 0
    was_open_at_start: bool = False
    last_left: float = 0.0

    def turn_began(self, first_seq: int) -> None:
        """A turn begins with the event of that number."""
        self.turn_first_seq = first_seq
        self.turn_ended = None
        self.attached = 0
        self.was_open_at_start = self.open_now > 0

    def turn_finished(self) -> None:
        """The turn's terminal event was written."""
        self.turn_ended = time.monotonic()

    def join(
        self, *, last_seq: int, is_paused: bool, grace_seconds: float, replay_finished: bool
    ) -> int:
        """Count a stream that opens now; return the number after which it is served.

        A turn that waits for the client has shown an idle event: it counts as finished for readers
        that want no replay of those, and as open for the others.
        """
        if is_paused and not replay_finished:
            after = last_seq
        else:
            after = self._served_after(last_seq, grace_seconds, replay_finished)
        self.attached += 1
        self.open_now += 1
        return after

    def leave(self) -> None:
        """A stream was closed."""
        self.open_now -= 1
        self.last_left = time.monotonic()

    def _served_after(self, last_seq: int, grace_seconds: float, replay_finished: bool) -> int:
        if self.turn_first_seq == 0:
            return last_seq
        whole_turn = self.turn_first_seq - 1
        if self.turn_ended is None:
            return whole_turn
        if not replay_finished or self.was_open_at_start:
            return last_seq
        now = time.monotonic()
        if self.attached == 0:
            return whole_turn if now - self.turn_ended <= grace_seconds else last_seq
        left_recently = self.open_now == 0 and now - self.last_left <= grace_seconds
        return whole_turn if self.attached == 1 and left_recently else last_seq
