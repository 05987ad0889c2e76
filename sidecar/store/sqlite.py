"""The SQLite file: one writer thread with grouped commits, one reader thread.

Why not a connection per request: SQLite has one writer anyway, and a commit costs an fsync. Jobs
that wait while the previous commit runs are executed together and committed once, so the cost of
durability is shared by all sessions. One that fails is undone alone. The loop is woken once per
commit, whatever the number of callers: waking it is a good part of what a small commit costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sidecar.store.interface import Job, StoreError, StoreLockedError
from sidecar.store.migrations import migrate

T = TypeVar("T")

_MAX_JOBS_PER_COMMIT = 256
_FULL_PATIENCE_SECONDS = 5.0
"""How long a write to a full disk is tried again before it fails. Meanwhile `managed.sessions.space` stops
the session that filled it."""
_FULL_PAUSE_SECONDS = 0.1
_BUSY_TIMEOUT_SECONDS = 10.0
"""How long another program's lock is waited for, at the opening and with each commit."""


@dataclass(slots=True)
class _Write:
    """One job on its way through the writer; its future belongs to the loop."""

    job: Job[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def run(self, connection: SqliteConnection) -> None:
        try:
            self.result = self.job(connection)
        except sqlite3.Error as error:
            self.error = _store_error(error)
        except Exception as error:  # noqa: BLE001, RUF100  # handed to the caller of this one job
            self.error = error

    def resolve(self) -> None:
        if self.future.done():
            return  # the caller was cancelled
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteConnection(sqlite3.Connection):
    """What jobs get: SQLite's own connection, and what PostgreSQL needs besides."""

    def lock_row(self, table: str, id_: str, *, is_shared: bool = False) -> None:
        """Nothing to do: the file has one writer."""

    def text(self, value: str | memoryview) -> str | memoryview:
        """See `interface.Connection`."""
        return value

    has_erasure = False
    """Whether a secret that was deleted may still be in the write-ahead log."""

    def note_erasure(self) -> None:
        """See `interface.Connection`. The file itself is overwritten (`secure_delete`)."""
        self.has_erasure = True


class SqliteStore:
    """Async front of the SQLite file at `path`; see `interface.Store`.

    Jobs get SQLite's own connection: nearly all of the interface is a subset of it, so nothing is wrapped.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "FULL",
        full_patience_seconds: float = _FULL_PATIENCE_SECONDS,
    ) -> None:
        self._path = path
        self._full_patience_seconds = full_patience_seconds
        self._synchronous = synchronous
        self._jobs: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")
        self._read_connection: SqliteConnection | None = None
        self._has_links = False
        """Whether its file system counts them; not all in user space do."""
        self._descriptor = -1
        """Of the file, to see whether it is still in a directory. Closed last: that ends SQLite's locks."""

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    @property
    def location(self) -> str:
        """The file's path, for messages."""
        return str(self._path)

    @property
    def queued_writes(self) -> int:
        """Jobs that wait for the writer; growth means that the disk does not keep up."""
        return self._jobs.qsize()

    def size_bytes(self) -> int:
        """Return the size of the file and its write-ahead log."""
        parts = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    async def open(self) -> None:
        """Create or migrate the schema and start the threads. Raises StoreError, OSError."""
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(self._reader, self._connect_and_migrate)
            self._read_connection = await loop.run_in_executor(self._reader, self._connect)
        except sqlite3.Error as error:
            raise _store_error(error) from error
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._has_links = os.fstat(self._descriptor).st_nlink > 0
        self._writer = threading.Thread(
            target=self._run_writer, args=(connection, loop), name="store-writer", daemon=True
        )
        self._writer.start()

    async def close(self) -> None:
        """Run what is queued, checkpoint the WAL into the main file, close."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._jobs.put(None)
            await asyncio.to_thread(writer.join)
        if self._read_connection is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._reader, self._read_connection.close)
            self._read_connection = None
        self._reader.shutdown()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def write(self, job: Job[T]) -> T:
        """Run `job` in the next transaction; returns its result once committed.

        Cancelling the caller does not take the job back: it is committed or refused as a whole.
        """
        if self._writer is None:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Write(job, future))
        return await future

    async def read(self, job: Job[T]) -> T:
        """Run `job` on one snapshot of what is committed."""
        connection = self._read_connection
        if connection is None:
            raise StoreError("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._reader, _read, job, connection
            )
        except sqlite3.Error as error:
            raise _store_error(error) from error

    def _connect(self) -> SqliteConnection:
        connection = sqlite3.connect(
            self._path,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=SqliteConnection,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(
            "PRAGMA secure_delete=ON"
        )  # a deleted secret is not in the file any more
        return connection

    def _connect_and_migrate(self) -> SqliteConnection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.touch(mode=0o600)
        connection = self._connect()
        migrate(connection)
        return connection

    def _removed(self) -> StoreError | None:
        """Return what is said when the file is in no directory any more: what SQLite writes then is lost."""
        if not self._has_links or os.fstat(self._descriptor).st_nlink > 0:
            return None
        return StoreError(f"{self._path} was removed; restore it and start again")

    def _run_writer(self, connection: SqliteConnection, loop: asyncio.AbstractEventLoop) -> None:
        open_for_jobs = True
        give_up_at: float | None = None
        while open_for_jobs:
            batch = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while batch[-1] is not None and len(batch) < _MAX_JOBS_PER_COMMIT:
                    batch.append(self._jobs.get_nowait())
            open_for_jobs = batch[-1] is not None
            writes = [write for write in batch if write is not None]
            removed = self._removed()
            for write in writes:
                write.error = removed
            if removed is None:
                _commit_together(connection, writes)
            while refused := [write for write in writes if _full(write.error)]:
                give_up_at = give_up_at or time.monotonic() + self._full_patience_seconds
                if time.monotonic() >= give_up_at:
                    break
                time.sleep(_FULL_PAUSE_SECONDS)
                for write in refused:
                    write.error = None
                _commit_together(connection, refused)
            else:
                give_up_at = None
            if connection.has_erasure:
                _empty_log(connection)
            with contextlib.suppress(RuntimeError):  # the loop was closed before the store
                loop.call_soon_threadsafe(_resolve_all, writes)
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()


def _empty_log(connection: SqliteConnection) -> None:
    """Move the log into the file and cut it to nothing; later, if that cannot be done now."""
    with contextlib.suppress(sqlite3.Error):
        (is_blocked, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.has_erasure = bool(is_blocked)


def _full(error: Exception | None) -> sqlite3.Error | None:
    """Return SQLite's error if that is for want of space on the disk."""
    cause = error.__cause__ if error is not None else None
    is_full = isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    return cause if is_full else None  # type: ignore[return-value]  # just checked


def _store_error(error: sqlite3.Error) -> StoreError:
    """Translate one of SQLite's errors; the original is chained."""
    code = getattr(error, "sqlite_errorcode", None)
    is_locked = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    translated = StoreLockedError(str(error)) if is_locked else StoreError(str(error))
    translated.__cause__ = error
    return translated


def _read(job: Job[T], connection: SqliteConnection) -> T:
    """Run a job on one snapshot: between two statements of it the writer may commit."""
    connection.execute("BEGIN")
    try:
        return job(connection)
    finally:
        connection.execute("ROLLBACK")


def _commit_together(connection: SqliteConnection, batch: Sequence[_Write]) -> None:
    """Run the jobs in one transaction; afterwards each has its result or its error."""
    if not batch:
        return
    try:
        connection.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:
            batch[0].run(connection)
        else:
            for write in batch:
                connection.execute("SAVEPOINT job")
                write.run(connection)
                if (full := _full(write.error)) is not None:
                    raise full  # SQLite has undone the whole transaction
                if write.error is not None:
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
        is_void = len(batch) == 1 and batch[0].error is not None
        connection.execute("ROLLBACK" if is_void else "COMMIT")
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        for write in batch:
            write.error = write.error or _store_error(error)


def _resolve_all(writes: Sequence[_Write]) -> None:
    for write in writes:
        write.resolve()
