"""One reader of a session's events: a position in the log, its previews, and when to wake."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.managed.event_log import Event, Preview

_BATCH_BYTES = 64 * 1024
"""Events that a reader is given at once, about."""
_PREVIEW_LIMIT = 1024
"""Preview frames a reader may lag behind; then its previews are shed, never its events."""


class Subscription:
    """Made by `EventLog.subscribe`. Iterate `batches()` once; `previews` holds the kinds asked for."""

    def __init__(
        self,
        events_after: Callable[[int], AsyncIterator[Event]],
        *,
        after: int,
        previews: frozenset[str],
    ) -> None:
        self._events_after = events_after
        self._after = after
        self._previews = previews
        self._pending_previews: deque[Preview] = deque()
        self._previewed: str | None = None
        self._wake = asyncio.Event()
        self._is_closed = False
        self._last: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silent_at = 0.0
        self._is_silent = False

    @property
    def position(self) -> int:
        """The number of the last event that was handed out."""
        return self._after

    def notify(self) -> None:
        """There is something new."""
        self._wake.set()

    def preview(self, preview: Preview) -> None:
        """Take a preview frame.

        Deltas of an event whose start this reader did not get are dropped, and a reader that lags
        loses the rest of that event's preview: a preview is a prefix or nothing, never has a hole.
        """
        if preview.kind not in self._previews:
            return
        if len(self._pending_previews) >= _PREVIEW_LIMIT:
            self._previewed = None
            return
        if preview.type == "event_start":
            self._previewed = preview.event_id
        if preview.event_id == self._previewed:
            self._pending_previews.append(preview)
            self._wake.set()

    def close(self, last: bytes | None = None) -> None:
        """End the stream after what is already in the log, then with the frame `last`."""
        self._last = last
        self._is_closed = True
        self._wake.set()

    async def batches(self, heartbeat_seconds: float) -> AsyncIterator[list[bytes]]:
        """Yield frames in order, those that are there together in one list: a write each would cost us
        and the client a system call each. An SSE comment after `heartbeat_seconds` of silence.
        """
        try:
            while True:
                self._wake.clear()
                closing = self._is_closed
                # Previews were announced before the events that finish them, so they go first.
                batch = [preview.frame for preview in self._pending_previews]
                self._pending_previews.clear()
                size = 0
                async for event in self._events_after(self._after):
                    self._after = event.seq
                    batch.append(event.frame)
                    size += len(batch[-1])
                    if size >= _BATCH_BYTES:
                        yield batch
                        batch, size = [], 0
                if closing and self._last is not None:
                    batch.append(self._last)
                if batch:
                    yield batch
                if closing:
                    return
                if not await self._news(heartbeat_seconds):
                    yield [b": heartbeat\n\n"]
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def frames(self, heartbeat_seconds: float) -> AsyncIterator[bytes]:
        """Yield the same one by one."""
        async for batch in self.batches(heartbeat_seconds):
            for frame in batch:
                yield frame

    async def _news(self, seconds: float) -> bool:
        """Wait until there is something new; return False after so long without.

        One timer serves many waits, it looks at the clock when it fires: a time-out of its own for each
        would cost more than all else that a small preview costs here.
        """
        if self._pending_previews:
            return True
        loop = asyncio.get_running_loop()
        self._silent_at, self._is_silent = loop.time() + seconds, False
        if self._timer is None:
            self._timer = loop.call_at(self._silent_at, self._look, loop)
        await self._wake.wait()
        return not self._is_silent

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if loop.time() < self._silent_at:
            self._timer = loop.call_at(self._silent_at, self._look, loop)
        else:
            self._is_silent = True
            self._wake.set()
