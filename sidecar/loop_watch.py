"""An event loop that notices when something holds it: everything else waits for as long.

What is measured is the processor time of the loop's thread between two looks at its sockets, not the clock:
a machine with too few processors delays a loop, and that is not a fault of the code.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType

import structlog

_READING_SECONDS = 0.002
"""How old a reading of the thread's processor time may be. Each is a system call, unlike one of the wall
clock, and the loop turns thousands of times a second; a hold is measured too long by as much at most."""
_SAMPLE_SECONDS = 0.01
_SAMPLING_SECONDS = 60.0
"""How long after a stall a thread looks what the loop runs, so that the next one is logged with its place."""
_LOG_PAUSE_SECONDS = 1.0
_PLACES = 100
_PACKAGE = str(Path(__file__).parent)
_UNSEEN = "not seen; stalls of the next minute are logged with their place"

_log = structlog.get_logger(__name__)


class StallWatch:
    """Counts how often the loop was held for more than `threshold_seconds` of processor time.

    `began` and `ended` are called on the loop's thread around everything that it runs at a time.
    """

    def __init__(self, threshold_seconds: float) -> None:
        self._threshold_seconds = threshold_seconds
        self.stalls = 0
        self.stalled_seconds = 0.0
        self.longest_seconds = 0.0
        self._began_at = math.inf
        self._cpu_at = 0.0
        """The thread's processor time when it was read last, which was at `_read_at`."""
        self._read_at = -math.inf
        self._logged_at = -_LOG_PAUSE_SECONDS
        self._sampler: threading.Thread | None = None
        self._sample_until = 0.0
        self._place = ""
        self.places: deque[str] = deque(maxlen=_PLACES)
        """What held the loop lately, where that was seen."""

    def began(self) -> None:
        """The loop begins to run what is ready."""
        self._place = ""
        now = time.monotonic()
        if now - self._read_at > _READING_SECONDS:
            self._cpu_at, self._read_at = time.thread_time(), now
        self._began_at = now

    def ended(self) -> None:
        """The loop has run everything that was ready."""
        began_at, self._began_at = self._began_at, math.inf
        if time.monotonic() - began_at <= self._threshold_seconds:
            return  # no more processor time than time
        held = time.thread_time() - self._cpu_at
        self._read_at = -math.inf
        if held > self._threshold_seconds:
            self._note(held)

    def _note(self, held: float) -> None:
        self.stalls += 1
        self.stalled_seconds += held
        self.longest_seconds = max(self.longest_seconds, held)
        if self._place:
            self.places.append(self._place)
        now = time.monotonic()
        self._sample_until = now + _SAMPLING_SECONDS
        if self._sampler is None or not self._sampler.is_alive():
            self._sampler = self._start_sampler()
        if now - self._logged_at >= _LOG_PAUSE_SECONDS:
            self._logged_at = now
            _log.warning(
                "event loop held",
                seconds=round(held, 3),
                stalls=self.stalls,
                place=self._place or _UNSEEN,
            )

    def _start_sampler(self) -> threading.Thread:
        loop_thread = threading.get_ident()
        clock = time.pthread_getcpuclockid(loop_thread)

        def sample() -> None:
            while time.monotonic() < self._sample_until:
                time.sleep(_SAMPLE_SECONDS)
                if self._began_at == math.inf or self._place:
                    continue
                if time.clock_gettime(clock) - self._cpu_at > self._threshold_seconds / 2:
                    self._place = _place_of(sys._current_frames().get(loop_thread))  # noqa: SLF001  # documented

        thread = threading.Thread(target=sample, name="stall sampler", daemon=True)
        thread.start()
        return thread


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop with a `StallWatch`, which reads a clock twice in each of its turns."""

    def __init__(self, threshold_seconds: float) -> None:
        self.watch = StallWatch(threshold_seconds)
        super().__init__(_WatchedSelector(self.watch))


class _WatchedSelector(selectors.DefaultSelector):
    """The loop waits here, and runs what is ready between two calls."""

    def __init__(self, watch: StallWatch) -> None:
        super().__init__()
        self._watch = watch

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._watch.ended()
        ready = super().select(timeout)
        self._watch.began()
        return ready


def running_watch() -> StallWatch:
    """Return the watch of the running loop; of another kind of loop, one that sees nothing."""
    loop = asyncio.get_running_loop()
    return loop.watch if isinstance(loop, WatchedLoop) else StallWatch(math.inf)


def _place_of(frame: FrameType | None) -> str:
    """Return `file:line function` of the innermost frame of ours, and of what it calls."""
    innermost = frame
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    places = [f for f in (frame, innermost) if f is not None]
    return " > ".join(dict.fromkeys(map(_describe, places)))


def _describe(frame: FrameType) -> str:
    code = frame.f_code
    name = code.co_filename.removeprefix(f"{_PACKAGE}/")
    return f"{name}:{frame.f_lineno} {code.co_qualname}"
