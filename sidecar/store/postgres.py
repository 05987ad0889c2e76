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
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import conninfo, errors

from sidecar.store.interface import (
    Cursor,
    Job,
    Parameters,
    SchemaTooNewError,
    StoreError,
    StoreLockedError,
)
from sidecar.store.migrations_postgres import MIGRATIONS

T = TypeVar("T")

_WRITERS = 4
"""Connections that write. A turn commits a few times; a session's commits never overlap."""
_READERS = 2
_CONNECT_TIMEOUT_SECONDS = 5
_STATEMENT_TIMEOUT_SECONDS = 15
_LOCK_TIMEOUT_SECONDS = 10
_MAX_CONFLICTS = 5
_PREPARE_AFTER = 3
"""Executions after which a statement is prepared on its connection."""
_RETRY_PAUSE_SECONDS = 0.1
_MIGRATION_LOCK = 0x0C0DE51D
"""The advisory lock under which one pod migrates while the others wait."""

_SESSION = (
    f"SET statement_timeout = '{_STATEMENT_TIMEOUT_SECONDS}s'; "
    f"SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'; "
    "SET idle_in_transaction_session_timeout = '60s'; "
    "SET synchronous_commit = on; SET timezone = 'UTC'"
)

_log = structlog.get_logger(__name__)

Raw = psycopg.Connection[Any]


class Row(tuple[Any, ...]):
    """A row by column name and by position, as `sqlite3.Row` is."""

    __slots__ = ()
    places: Mapping[str, int]

    def __getitem__(self, key: Any, /) -> Any:
        return tuple.__getitem__(self, self.places[key] if isinstance(key, str) else key)

    def keys(self) -> Sequence[str]:
        """Return the names of the columns."""
        return list(self.places)


@functools.lru_cache(maxsize=256)
def _row_class(names: tuple[str, ...]) -> type[Row]:
    places = {name: place for place, name in enumerate(names)}
    return type("Row", (Row,), {"places": places, "__slots__": ()})


def _rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Row]:
    return _row_class(tuple(column.name for column in cursor.description or ()))


@functools.lru_cache(maxsize=1024)
def translate(sql: str) -> str:
    """Return `sql` with psycopg's placeholders instead of `?`."""
    return sql.replace("%", "%%").replace("?", "%s")


class PostgresConnection:
    """What a job gets: `interface.Connection` over psycopg's."""

    __slots__ = ("raw",)

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement."""
        try:
            return self.raw.execute(translate(sql), parameters)
        except (psycopg.DataError, UnicodeEncodeError) as error:
            storable = _storable(parameters)
            if storable == list(parameters):
                raise _store_error(error) from error
            return self.raw.execute(translate(sql), storable)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run one statement for each set of parameters."""
        cursor = self.raw.cursor()
        if rows := list(parameters):
            cursor.executemany(translate(sql), rows)
        return cursor

    def lock_row(self, table: str, id_: str, *, is_shared: bool = False) -> None:
        """Lock the row until the transaction ends; others that lock it wait."""
        mode = "SHARE" if is_shared else "UPDATE"
        self.execute(f"SELECT 1 FROM {table} WHERE id = ? FOR {mode}", (id_,))  # noqa: S608  # our names

    def note_erasure(self) -> None:
        """Nothing to do: what PostgreSQL keeps of deleted rows, and where, is its operator's matter."""


def _storable(parameters: Parameters) -> list[Any]:
    """Return the parameters without what PostgreSQL's text cannot hold: NUL and lone surrogates.

    Our own JSON is ASCII, so these come from ids and filters that clients typed, and match nothing.
    """
    return [
        value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else value
        for value in parameters
    ]


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
        self._parameters = _connection_parameters(url)
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
                if unanswered is not None and link.was_committed(unanswered.transaction):
                    result: T = unanswered.result
                    return result
                unanswered = None
                return link.run(job, is_write=is_write)
            except UnansweredCommitError as error:
                unanswered, failure = error, error.cause
            except psycopg.Error as error:
                failure = error
            is_lost = not link.is_connected
            conflicts += isinstance(failure, _CONFLICTS)
            is_conflict = isinstance(failure, _CONFLICTS) and conflicts < _MAX_CONFLICTS
            if not is_conflict and not (is_lost and time.monotonic() < give_up_at):
                raise _store_error(failure) from failure
            self.repeated_jobs += 1
            if is_lost:
                self.reconnects += 1
                if not is_reported:
                    _log.warning("database connection lost", error=_first_line(failure))
                is_reported = True
                time.sleep(_RETRY_PAUSE_SECONDS)

    def _prepare(self) -> None:
        """Connect once and bring the schema to the newest version. Raises StoreError."""
        try:
            with contextlib.closing(Link(self._parameters)) as link:
                migrate(link.raw)
        except psycopg.Error as error:
            raise _store_error(error) from error


class UnansweredCommitError(Exception):
    """The connection was lost after COMMIT was sent: only the server knows what became of it."""

    def __init__(self, transaction: str, result: Any, cause: psycopg.Error) -> None:
        super().__init__(f"no answer to the COMMIT of transaction {transaction}")
        self.transaction = transaction
        self.result = result
        self.cause = cause


class Link:
    """One connection, opened when it is needed and again when it was lost. For one thread at a time."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._raw: Raw | None = None

    @property
    def raw(self) -> Raw:
        """The open connection. Raises psycopg.Error."""
        if self._raw is None or self._raw.closed:
            self._raw = None
            raw: Raw = psycopg.connect(**self._parameters, autocommit=True, row_factory=_rows)
            raw.prepare_threshold = _PREPARE_AFTER
            raw.execute(_SESSION)
            self._raw = raw
        return self._raw

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open, as far as was noticed."""
        return self._raw is not None and not self._raw.closed

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(psycopg.Error):
                raw.close()

    def run(self, job: Job[T], *, is_write: bool = True) -> T:
        """Run `job` in one transaction.

        Raises what the job raises, psycopg.Error, and UnansweredCommitError.
        """
        raw = self.raw
        began = raw.execute(_BEGIN_WRITE if is_write else _BEGIN_READ, prepare=False)
        transaction = _first_value(began) if is_write and began.nextset() else ""
        try:
            result = job(PostgresConnection(raw))
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                raw.execute("ROLLBACK", prepare=False)
            raise
        try:
            raw.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            if is_write and not self.is_connected:
                raise UnansweredCommitError(transaction, result, error) from error
            raise
        return result

    def was_committed(self, transaction: str) -> bool:
        """Ask what became of a transaction. Raises psycopg.Error."""
        query = "SELECT pg_xact_status(%s::xid8)"
        while (status := _first_value(self.raw.execute(query, (transaction,)))) == "in progress":
            time.sleep(_RETRY_PAUSE_SECONDS)
        return bool(status == "committed")


_BEGIN_WRITE = "BEGIN; SELECT pg_current_xact_id()::text"
"""The id costs no round trip of its own; `Link.was_committed` needs it after a lost COMMIT."""
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure)


def migrate(raw: Raw, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema to the newest version; each step is one transaction, and undone if it fails.

    Pods that start together do it one after the other. Raises SchemaTooNewError, StoreError for a
    database that takes no writes, and psycopg.Error for a step that failed.
    """
    if _first_value(raw.execute("SHOW transaction_read_only")) == "on":
        raise StoreError(
            "the database is read-only (a standby, or a role without the right to write)"
        )
    raw.execute("SET statement_timeout = 0; SET lock_timeout = 0")
    raw.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
    try:
        version = _schema_version(raw)
        if version > len(migrations):
            raise SchemaTooNewError(
                f"the database has schema version {version}, this release knows {len(migrations)}: "
                "run the newer release, or restore the database from before the upgrade"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            with raw.transaction():
                if number == 1:
                    raw.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
                    raw.execute("INSERT INTO schema_version VALUES (0)")
                raw.execute(script)
                raw.execute("UPDATE schema_version SET version = %s", (number,))
    finally:
        with contextlib.suppress(psycopg.Error):
            raw.execute("SELECT pg_advisory_unlock(%s)", (_MIGRATION_LOCK,))


def _schema_version(raw: Raw) -> int:
    if _first_value(raw.execute("SELECT to_regclass('schema_version')")) is None:
        return 0
    return int(_first_value(raw.execute("SELECT version FROM schema_version")))


def _first_value(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def _connection_parameters(url: str) -> dict[str, Any]:
    """Read a URL. Raises StoreError, which never shows it: it may hold a password."""
    try:
        parameters = conninfo.conninfo_to_dict(url)
        for port in str(parameters.get("port", "")).split(","):
            # libpq would quote it: in a URL with a bare / or # in the password it is a piece of that.
            int(port or 0)
    except (psycopg.Error, ValueError) as error:
        raise StoreError(
            "not a PostgreSQL URL such as postgresql://user:password@host:5432/database; "
            "percent-encode special characters of the password"
        ) from error
    defaults = {
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "opencode-sidecar",
    }
    return {**defaults, **parameters}


def _store_error(error: BaseException) -> StoreError:
    """Translate one of the driver's errors; the original is chained."""
    if isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected):
        return StoreLockedError(_first_line(error))
    return StoreError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _resolve(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return  # the caller was cancelled
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
