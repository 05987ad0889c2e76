"""opencode's events as they came, for readers that are slower than the pump.

opencode makes and sends every event once for each stream that is open, on the one thread on which all turns
run. So its events are read once, by the pump, and passed on from here to as many readers as there are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator

MOST_HELD_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024


class FrameFeed:
    """Passes whole frames to its readers. A reader for which more than `most_held_bytes` wait is cut."""

    def __init__(self, *, most_held_bytes: int = MOST_HELD_BYTES) -> None:
        self._most_held_bytes = most_held_bytes
        self._readers: set[FrameReader] = set()
        self._greetings: dict[int, bytes] = {}
        self.cut_readers = 0
        """How many were too slow."""

    @property
    def readers(self) -> int:
        """How many there are."""
        return len(self._readers)

    def greet(self, boot: int, frame: bytes) -> None:
        """The events of a boot are being read; `frame` is its first, which new readers get first as well."""
        self._greetings[boot] = frame

    def forget(self, boot: int) -> None:
        """The events of a boot are not read at the moment, or never again."""
        self._greetings.pop(boot, None)

    def put(self, frames: bytes) -> None:
        """Pass whole frames on."""
        for reader in tuple(self._readers):
            reader.put(frames)
            if reader.held_bytes > self._most_held_bytes:
                self.cut_readers += 1
                self._readers.discard(reader)
                reader.cut()

    def wake(self) -> None:
        """Have every reader look around, though nothing came."""
        for reader in self._readers:
            reader.wake()

    @contextlib.contextmanager
    def open(self, *, on_cut: Callable[[], None]) -> Iterator[FrameReader]:
        """Read from now on. `on_cut` is called when the reader is too slow, and gets nothing any more."""
        reader = FrameReader(on_cut)
        if self._greetings:
            reader.put(self._greetings[max(self._greetings)])
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)


class FrameReader:
    """What waits for one reader."""

    def __init__(self, on_cut: Callable[[], None]) -> None:
        self.cut = on_cut
        self.held_bytes = 0
        self._held: deque[bytes] = deque()
        self._news = asyncio.Event()

    def put(self, frames: bytes) -> None:
        """Add whole frames."""
        self._held.append(frames)
        self.held_bytes += len(frames)
        self._news.set()

    def wake(self) -> None:
        """End `wait`."""
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for frames, or to be woken; False when neither happens for that long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> bytes:
        """Return the oldest frames, many small ones together; empty when there are none."""
        self._news.clear()
        pieces, size = [], 0
        while self._held and size < _PIECE_BYTES:
            pieces.append(self._held.popleft())
            size += len(pieces[-1])
        self.held_bytes -= size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
