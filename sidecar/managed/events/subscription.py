"""One reader of a session's events: a position in the log, its previews, and when to wake."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial

from sidecar.aiokit import aside
from sidecar.managed.events.event import Event, Preview

_BATCH_BYTES = 64 * 1024
"""Events that a reader is given at once, about."""
_PREVIEW_LIMIT = 1024
"""Preview frames a reader may lag behind; then its previews are shed, never its events."""


class Subscription:
    """Made by `EventLog.subscribe`. Iterate `batches()`; `previews` holds the kinds asked for."""

    def __init__(
        self,
        events_after: Callable[[int], AsyncIterator[Event]],
        *,
        after: int,
        previews: frozenset[str],
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._events_after = events_after
        self._after = after
        self._previews = previews
        self._hidden = hidden
        self._pending_previews: deque[Preview] = deque()
        self._previewed: str | None = None
        self._wake = asyncio.Event()
        self._is_closed = False
        self._last: bytes | None = None

    @property
    def position(self) -> int:
        """The number of the last event that was handed out."""
        return self._after

    def begin_after(self, after: int) -> None:
        """Begin after another event than was said first. Before the first batch only."""
        self._after = after

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
        while True:
            self._wake.clear()
            closing = self._is_closed
            # Previews were announced before the events that finish them, so they go first.
            batch = [preview.frame for preview in self._pending_previews]
            self._pending_previews.clear()
            size = 0
            async for event in self._events_after(self._after):
                self._after = event.seq
                if event.type in self._hidden:
                    continue
                batch.append(await aside(event.size, partial(_frame, event)))
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
            if self._pending_previews:
                continue
            try:
                async with asyncio.timeout(heartbeat_seconds):
                    await self._wake.wait()
            except TimeoutError:
                yield [b": heartbeat\n\n"]

    async def frames(self, heartbeat_seconds: float) -> AsyncIterator[bytes]:
        """Yield the same one by one."""
        async for batch in self.batches(heartbeat_seconds):
            for frame in batch:
                yield frame


def _frame(event: Event) -> bytes:
    return event.frame
