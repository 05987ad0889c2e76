"""One event: append, persist, publish, against what the disk alone asks for a synced write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench import stored
from bench.processes import scratch
from bench.report import Row
from bench.stats import ratio, sample
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.sqlite import SqliteStore

TITLE = "The event log: append to published, log on disk"

_MOST_TIMES_DISK = 3.0
_WRITERS = 8
_HEARTBEAT_SECONDS = 60.0
_PAGE_BYTES = 4096


async def measure(*, quick: bool) -> list[Row]:
    """Time a writer until its reader has the frame: one session, then several at once."""
    runs = 50 if quick else 2000
    with scratch() as directory:
        async with _open(directory / "log.db") as database:
            log = EventLog(database=database)
            writers = [_Writer(log, await stored.new_session(database)) for _ in range(_WRITERS)]
            single = await sample(writers[0].append, runs=runs, warm_up=10)
            free = list(writers)

            async def append_somewhere() -> None:
                writer = free.pop()
                await writer.append()
                free.append(writer)

            several = await sample(append_somewhere, runs=runs, clients=_WRITERS)
            for writer in writers:
                await writer.close()
        with _synced_write(directory / "page") as write:
            disk = await sample(write, runs=runs, warm_up=10)
    times = ratio(single.p50, disk.p50)
    return [
        Row(
            "one session",
            f"{single}: {times:.2f}x",
            f"a page written and synced, nothing else: {disk}",
            f"at most {_MOST_TIMES_DISK:.2f}x",
            times <= _MOST_TIMES_DISK,
        ),
        Row(f"{_WRITERS} sessions at once, commits shared", str(several)),
    ]


class _Writer:
    """The writer and one reader of a session."""

    def __init__(self, log: EventLog, session_id: str) -> None:
        self._log = log
        self._session_id = session_id
        self._head = Head(0, 0)
        self._subscription = log.subscribe(session_id, after=0)
        self._frames = self._subscription.__enter__().frames(_HEARTBEAT_SECONDS)

    async def append(self) -> None:
        """Append one event and return when the reader has its frame."""
        await self._log.append(self._session_id, self._head, [stored.MESSAGE])
        await anext(self._frames)

    async def close(self) -> None:
        """Unsubscribe."""
        self._subscription.__exit__(None, None, None)


@asynccontextmanager
async def _open(path: Path) -> AsyncIterator[SqliteStore]:
    database = SqliteStore(path)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def _synced_write(path: Path) -> Iterator[Callable[[], Awaitable[object]]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    page = bytes(_PAGE_BYTES)

    def write() -> None:
        os.pwrite(descriptor, page, 0)
        os.fdatasync(descriptor)

    try:
        yield lambda: asyncio.to_thread(write)
    finally:
        os.close(descriptor)
