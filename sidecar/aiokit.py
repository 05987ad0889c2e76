"""Small asyncio tools: owned tasks, back-off, single flight, bounded silence. Not about the domain."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import structlog

T = TypeVar("T")
P = ParamSpec("P")

END_OF_FRAME = b"\n\n"
"""What ends a frame of server-sent events as opencode writes them."""
SMALL_BYTES = 64 * 1024
"""JSON of this size is read or written in a millisecond or two."""

_log = structlog.get_logger(__name__)


class TaskOwner:
    """Owns background tasks: each has a name, a strong reference, and a death that is noticed.

    An unexpected exception is logged and handed to `on_crash(task_name, error)`; `close()` cancels
    what is left and waits for it. Use one owner per component and close it with the component.
    """

    def __init__(
        self, owner: str, *, on_crash: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self._owner = owner
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(
        self, name: str, coro: Coroutine[Any, Any, T], *, is_awaited: bool = False
    ) -> asyncio.Task[T]:
        """Start `coro` as the task `<owner>:<name>`.

        `is_awaited` says that a caller awaits the result: its error is raised there and not reported here.
        """
        task = asyncio.create_task(coro, name=f"{self._owner}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._forget if is_awaited else self._ended)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Cancel every task that still runs and wait until all have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # read, so that a waiter which was cancelled leaves nothing unread

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("background task died", task=task.get_name(), exc_info=error)
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)


@dataclass(slots=True)
class Backoff:
    """Growing delays with full jitter on the upper half; `reset()` after stable time.

    Delays are seconds: `first * factor**n`, at most `longest`, then scaled by 0.5 to 1.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    attempt: int = 0

    def next_delay(self) -> float:
        """Return the next delay in seconds and count the attempt."""
        ceiling = min(self.longest, self.first * self.factor**self.attempt)
        self.attempt += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not secrecy

    def reset(self) -> None:
        """Start again from the first delay."""
        self.attempt = 0


class SingleFlight(Generic[T]):
    """Callers that arrive while a run is under way share its result instead of starting another.

    The run belongs to no single caller: cancelling one waiter does not cancel it for the others.
    """

    def __init__(self, owner: TaskOwner, name: str, run: Callable[[], Awaitable[T]]) -> None:
        self._owner = owner
        self._name = name
        self._run = run
        self._current: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._current is None or self._current.done():
            self._current = self._owner.start(self._name, self._call(), is_awaited=True)
        return await asyncio.shield(self._current)

    async def _call(self) -> T:
        return await self._run()

    async def until_idle(self) -> None:
        """Wait for the end of a run that is under way, whatever its result."""
        while self._current is not None and not self._current.done():
            await asyncio.wait({self._current})


class NextFlight(Generic[T]):
    """Callers share the next run of `flight` that starts after their call, never one under way.

    Runs that start here are at least `pause_seconds` apart, however many callers wait for them.
    """

    def __init__(
        self, owner: TaskOwner, name: str, flight: SingleFlight[T], *, pause_seconds: float
    ) -> None:
        self._owner = owner
        self._name = name
        self._flight = flight
        self._pause_seconds = pause_seconds
        self._waiting: asyncio.Task[T] | None = None
        self._earliest = 0.0

    async def __call__(self) -> T:
        if self._waiting is None:
            self._waiting = self._owner.start(self._name, self._run_next(), is_awaited=True)
        return await asyncio.shield(self._waiting)

    async def _run_next(self) -> T:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(max(0.0, self._earliest - loop.time()))
            await self._flight.until_idle()
        finally:
            self._waiting = None  # callers from here on came after the start: theirs is the next
        self._earliest = loop.time() + self._pause_seconds
        return await self._flight()


class Callbacks(Generic[P]):
    """Subscribers of one kind of event; calling this calls them, in the order in which they came.

    One that raises is logged as a failed subscriber of `event` and keeps neither the others nor the caller
    from going on.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._all: list[Callable[P, object]] = []

    def add(self, callback: Callable[P, object]) -> Callable[[], None]:
        """Subscribe; the returned function unsubscribes and may be called twice."""
        self._all.append(callback)

        def remove() -> None:
            if callback in self._all:
                self._all.remove(callback)

        return remove

    def __bool__(self) -> bool:
        return bool(self._all)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for callback in tuple(self._all):
            try:
                callback(*args, **kwargs)
            except Exception:
                _log.exception("subscriber failed", about=self._event)


class SilenceBound:
    """A block that ends with TimeoutError when one of its `wait`s takes longer than `seconds`.

    For streams: `asyncio.timeout` makes and unmakes a timer for each chunk, this one looks at the clock
    when its only timer fires. What the block does between two waits is not bounded.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope = asyncio.timeout(None)
        self._waiting_since: float | None = None

    async def __aenter__(self) -> SilenceBound:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._seconds, self._look)
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Return its result, or end the block."""
        self._waiting_since = self._loop.time()
        try:
            return await awaitable
        finally:
            self._waiting_since = None

    def _look(self) -> None:
        now = self._loop.time()
        due = self._seconds + (now if self._waiting_since is None else self._waiting_since)
        if due <= now:
            self._scope.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)


def _everything(_beginning: bytes) -> bool:
    return True


class WholeFrames:
    """Cuts what comes in pieces after the last `END_OF_FRAME`.

    A frame of many pieces is put together once: joining it again for each piece would take seconds for 20 MB.
    `is_wanted` is shown the beginning of each frame of more than `SMALL_BYTES`; one that is not wanted is
    left out and not held.
    """

    def __init__(self, is_wanted: Callable[[bytes], bool] = _everything) -> None:
        self._is_wanted = is_wanted
        self._is_skipping = False
        self._is_judged = False
        """Whether the frame that is not complete yet was large enough to be looked at."""
        self._parts: list[bytes] = []
        self.held_bytes = 0
        """Size of the frame that is not complete yet."""

    def feed(self, piece: bytes) -> bytes:
        """Return the frames that are complete with this piece, their ends included; empty for none."""
        before = self._parts[-1][-1:] if self._parts else b""
        # The end itself may be cut in two.
        joined = before + piece
        if (end := joined.rfind(END_OF_FRAME)) < 0:
            self._hold(piece)
            return b""
        end += len(END_OF_FRAME) - len(before)
        start = 0
        if self._is_skipping:
            start = joined.find(END_OF_FRAME) + len(END_OF_FRAME) - len(before)
            self._parts = []
        whole = b"".join((*self._parts, piece[start:end]))
        self._parts, self.held_bytes = [], 0
        self._is_skipping = self._is_judged = False
        if end < len(piece):
            self._hold(piece[end:])
        return whole

    def _hold(self, piece: bytes) -> None:
        # Looked at with the piece after: by then the caller has seen the frames that came before this one.
        if not self._is_judged and self.held_bytes > SMALL_BYTES:
            self._is_judged = True
            self._is_skipping = not self._is_wanted(b"".join(self._parts))
        if self._is_skipping:
            self._parts, self.held_bytes = [piece[-1:]], 0
        else:
            self._parts.append(piece)
            self.held_bytes += len(piece)


async def aside(size: int, work: Callable[[], T]) -> T:
    """Call `work`, which works on `size` bytes: in a thread when that could hold the loop, else at once."""
    return work() if size <= SMALL_BYTES else await asyncio.to_thread(work)


async def in_pieces(data: bytes | bytearray) -> AsyncIterator[memoryview]:
    """Yield the data in pieces of `SMALL_BYTES`, to be sent without being copied into a buffer as a whole.

    Others run between two pieces: a receiver that is fast never lets the sender wait.
    """
    view = memoryview(data)
    for start in range(0, len(data), SMALL_BYTES):
        yield view[start : start + SMALL_BYTES]
        await asyncio.sleep(0)


async def cancel_and_wait(task: asyncio.Task[Any] | None) -> None:
    """Cancel `task` and wait for its end; a None or finished task is fine."""
    if task is None:
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
