"""The store in PostgreSQL: the same jobs, a transaction each, on a few blocking connections in threads.

Why threads and not an asynchronous driver: a job is a plain function of a connection, and stays one for
both databases. Why READ COMMITTED: what changes a session is fenced by its owner's epoch and by the key
of `events`; what several pods may change reads its row with `Connection.lock_row` first.

A connection that is lost, by a restart of the server for example, costs no job: the job is run again on
a new connection, and where only the answer to COMMIT was lost the server is asked what became of the
transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import errors

from sidecar.store.interface import Job, StoreError
from sidecar.store.postgres_link import (
    FORGET_COMMITS,
    RETRY_PAUSE_SECONDS,
    Link,
    UnansweredCommitError,
    connection_parameters,
    first_line,
    first_value,
    store_error,
)
from sidecar.store.postgres_schema import migrate

T = TypeVar("T")

_WRITERS = 4
"""Connections that write. A turn commits a few times; a session's commits never overlap."""
_READERS = 2
_MAX_CONFLICTS = 5
_CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Write:
    """One job on its way through a writer; its future belongs to the loop."""

    job: Job[Any]
    future: asyncio.Future[Any]


class PostgresStore:
    """Async front of the database at `url`; see `interface.Store`.

    For `patience_seconds` a lost server is waited for before a job fails with StoreError.
    """

    def __init__(self, url: str, *, patience_seconds: float = 10.0) -> None:
        self._parameters = connection_parameters(url)
        self._patience_seconds = patience_seconds
        self._jobs: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writers: list[threading.Thread] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._reading = threading.local()
        self._read_connections: list[Link] = []
        self._is_open = False
        self.reconnects = 0
        self.repeated_jobs = 0
        """Jobs that were run again after a conflict or a lost connection."""

    @property
    def location(self) -> str:
        """Server and database, without the password."""
        known = self._parameters
        host = known.get("host") or known.get("hostaddr") or "local socket"
        port = f":{known['port']}" if "port" in known else ""
        return f"postgresql://{host}{port}/{known.get('dbname', '')}"

    @property
    def queued_writes(self) -> int:
        """Jobs that wait for a writer."""
        return self._jobs.qsize()

    def size_bytes(self) -> int:
        """Not known here: the database is PostgreSQL's to measure."""
        return 0

    async def open(self) -> None:
        """Create or migrate the schema and start the threads. Raises StoreError."""
        await asyncio.get_running_loop().run_in_executor(self._readers, self._prepare)
        loop = asyncio.get_running_loop()
        self._is_open = True
        for number in range(_WRITERS):
            writer = threading.Thread(
                target=self._run_writer, args=(loop,), name=f"store-writer-{number}", daemon=True
            )
            writer.start()
            self._writers.append(writer)

    async def close(self) -> None:
        """Run what is queued and close."""
        self._is_open = False
        for _ in self._writers:
            self._jobs.put(None)
        for writer in self._writers:
            await asyncio.to_thread(writer.join)
        self._writers.clear()
        await asyncio.to_thread(self._readers.shutdown)
        for link in self._read_connections:
            link.close()

    async def write(self, job: Job[T]) -> T:
        """Run `job` in a transaction of its own; returns its result once committed.

        A caller that is cancelled leaves only when its job is over: the next commit of the same session
        must not run beside it on another connection.
        """
        if not self._is_open:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Write(job, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.wait([future])
            if future.done() and not future.cancelled():
                future.exception()  # seen
            raise

    async def read(self, job: Job[T]) -> T:
        """Run `job` on one snapshot of what is committed."""
        if not self._is_open:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, job)

    def connect(self) -> Link:
        """Return a connection of its own for a thread of its own, such as a heartbeat's. Blocking."""
        return Link(self._parameters)

    def _read(self, job: Job[T]) -> T:
        link: Link | None = getattr(self._reading, "link", None)
        if link is None:
            link = self._reading.link = Link(self._parameters)
            self._read_connections.append(link)
        return self._persist(link, job, is_write=False)

    def _run_writer(self, loop: asyncio.AbstractEventLoop) -> None:
        link = Link(self._parameters)
        while (write := self._jobs.get()) is not None:
            self._execute(write, link, loop)
            del write  # what the job holds is free while the next one is waited for
        link.close()

    def _execute(self, write: _Write, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._persist(link, write.job, is_write=True)
        except Exception as error:  # noqa: BLE001, RUF100  # handed to the caller of this one job
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed before the store
            loop.call_soon_threadsafe(_resolve, write.future, result, failure)

    def _persist(self, link: Link, job: Job[T], *, is_write: bool) -> T:
        """Run the job; again after a lost connection or a conflict with another transaction."""
        give_up_at = time.monotonic() + self._patience_seconds
        conflicts, is_reported = 0, False
        unanswered: UnansweredCommitError | None = None
        while True:
            try:
                if unanswered is not None and link.was_committed(unanswered.number):
                    result: T = unanswered.result
                    return result
                unanswered = None
                return link.run(job, is_write=is_write)
            except UnansweredCommitError as error:
                unanswered, failure = error, error.cause
            except psycopg.Error as error:
                failure = error
            if isinstance(failure, errors.ReadOnlySqlTransaction):
                link.close()  # it leads no more: the address, or the next one, leads to a server that does
            is_lost = not link.is_connected
            conflicts += isinstance(failure, _CONFLICTS)
            is_conflict = isinstance(failure, _CONFLICTS) and conflicts < _MAX_CONFLICTS
            if not is_conflict and not (is_lost and time.monotonic() < give_up_at):
                raise store_error(failure) from failure
            self.repeated_jobs += 1
            if is_lost:
                self.reconnects += 1
                if not is_reported:
                    _log.warning("database connection lost", error=first_line(failure))
                is_reported = True
                time.sleep(RETRY_PAUSE_SECONDS)

    def _refuse_transaction_pooler(self, link: Link) -> None:
        """Raise StoreError for a pooler that gives each transaction another connection.

        Settings and prepared statements of a connection would be another program's.
        """
        if link.raw.info.backend_pid == (before := _backend(link)):
            return  # no pooler
        with contextlib.closing(Link(self._parameters)) as other:
            other.raw.execute("BEGIN")
            _backend(other)
            if _backend(link) != before:
                raise StoreError(
                    "a pooler in transaction mode is in between: use its session mode, or the server's own "
                    "address"
                )

    def _prepare(self) -> None:
        """Connect once and bring the schema to the newest version. Raises StoreError."""
        try:
            with contextlib.closing(Link(self._parameters)) as link:
                self._refuse_transaction_pooler(link)
                migrate(link.raw)
                link.raw.execute(FORGET_COMMITS)
        except psycopg.Error as error:
            raise store_error(error) from error


def _backend(link: Link) -> int:
    return int(first_value(link.raw.execute("SELECT pg_backend_pid()")))


def _resolve(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return  # the caller was cancelled
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
