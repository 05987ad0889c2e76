"""Where an event stream comes from: this process, or another pod and then perhaps a third one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from sidecar.managed.events.log import EventLog
from sidecar.managed.events.replay_policy import OpenStream
from sidecar.managed.sessions.engine import SessionEngine

Batch = tuple[int, Sequence[bytes]]
"""(number of the last event in it or before it, frames)."""


JOINED: Batch = (0, [])
"""Yielded by a stream of several pods before its first batch: the owner counts the reader from now on."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asks for. Without `after` the replay policy decides where it begins."""

    session_id: str
    previews: frozenset[str]
    replay_finished: bool
    after: int | None = None
    hidden: frozenset[str] = frozenset()
    """Types of events that are left out."""
    is_watching: bool = False
    """Whether the reader only looks on: served live, and not counted by the replay policy."""


class Streams(Protocol):
    """Opens streams."""

    def open(self, wanted: Wanted) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Return the batches of a stream. Raises NotFoundError before the first one."""


class LocalStreams:
    """Streams of the sessions that this process owns."""

    def __init__(
        self,
        *,
        engine: SessionEngine,
        log: EventLog,
        heartbeat_seconds: float,
        late_reader_seconds: float,
        replay_pause_seconds: float,
        channel_pause_seconds: float,
    ) -> None:
        self._engine = engine
        self._log = log
        self.heartbeat_seconds = heartbeat_seconds
        self._late_reader_seconds = late_reader_seconds
        self._pauses = (replay_pause_seconds, channel_pause_seconds)

    @asynccontextmanager
    async def open(self, wanted: Wanted) -> AsyncIterator[AsyncIterator[Batch]]:
        """Join the session's readers; leave them at the end."""
        async with self._engine.live.holding(wanted.session_id) as actor:
            if wanted.is_watching:
                stream = OpenStream(actor.last_seq)
            else:
                stream = actor.replay_policy.join(
                    last_seq=actor.last_seq,
                    is_paused=actor.is_paused,
                    grace_seconds=self._late_reader_seconds,
                    replay_finished=wanted.replay_finished,
                )
            after = stream.after if wanted.after is None else wanted.after
            subscription = self._log.subscribe(
                wanted.session_id, after=after, previews=wanted.previews, hidden=wanted.hidden
            )
        try:
            with subscription as reader:
                if actor.record.status == "terminated":
                    reader.close()

                async def batches() -> AsyncIterator[Batch]:
                    if wanted.after is None:
                        reader.begin_after(await stream.settle(*self._pauses))
                    async for frames in reader.batches(self.heartbeat_seconds):
                        yield reader.position, frames

                yield batches()
        finally:
            if not wanted.is_watching:
                actor.replay_policy.leave(stream)
