"""One connection to PostgreSQL: what a job gets, rows by name, transactions, and the URL that is read."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, errors

from sidecar.store.interface import Cursor, Job, Parameters, StoreError, StoreLockedError

T = TypeVar("T")

_CONNECT_TIMEOUT_SECONDS = 5
_STATEMENT_TIMEOUT_SECONDS = 15
_LOCK_TIMEOUT_SECONDS = 10
_PREPARE_AFTER = 3
"""Executions after which a statement is prepared on its connection."""
RETRY_PAUSE_SECONDS = 0.1

_SESSION = (
    f"SET statement_timeout = '{_STATEMENT_TIMEOUT_SECONDS}s'; "
    f"SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'; "
    "SET idle_in_transaction_session_timeout = '60s'; "
    "SET synchronous_commit = on; SET timezone = 'UTC'"
)
_BEGIN_WRITE = "BEGIN"
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_MARK = (
    "INSERT INTO commits (link_id, number) VALUES (%s, %s) ON CONFLICT (link_id) "
    "DO UPDATE SET number = excluded.number, stored_at = clock_timestamp()"
)
_LAST_MARK = (
    "INSERT INTO commits (link_id, number) VALUES (%s, 0) ON CONFLICT (link_id) "
    "DO UPDATE SET link_id = excluded.link_id RETURNING number"
)
"""Waits for a transaction that is still under way, also for one that makes the row."""
FORGET_COMMITS = "DELETE FROM commits WHERE stored_at < clock_timestamp() - interval '1 day'"
"""Of connections of programs that were killed; one that lives makes its row again."""

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


class _Result:
    """The result of a statement that may still be on its way; reading it waits."""

    __slots__ = ("_cursor", "_pipeline")

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        if self._cursor.pgresult is None:
            self._pipeline.sync()
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


class PostgresConnection:
    """What a job gets: `interface.Connection` over psycopg's.

    Statements are sent one behind the other (libpq's pipeline); only a result that the job looks at is
    waited for, and an error that it did not wait for comes with the COMMIT.
    """

    __slots__ = ("_pipeline", "raw")

    def __init__(self, raw: Raw, pipeline: psycopg.Pipeline) -> None:
        self.raw = raw
        self._pipeline = pipeline

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement."""
        try:
            cursor = self.raw.execute(translate(sql), parameters)
        except (psycopg.DataError, UnicodeEncodeError) as error:
            storable = _storable(parameters)
            if storable == list(parameters):
                raise store_error(error) from error
            cursor = self.raw.execute(translate(sql), storable)
        return _Result(cursor, self._pipeline)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run one statement for each set of parameters."""
        rows = list(parameters)
        if len(rows) == 1:
            return self.execute(sql, rows[0])
        cursor = self.raw.cursor()
        if rows:
            cursor.executemany(translate(sql), rows)
        return _Result(cursor, self._pipeline)

    def lock_row(self, table: str, id_: str, *, is_shared: bool = False) -> None:
        """Lock the row until the transaction ends; others that lock it wait."""
        mode = "SHARE" if is_shared else "UPDATE"
        self.execute(f"SELECT 1 FROM {table} WHERE id = ? FOR {mode}", (id_,))  # noqa: S608  # our names

    def text(self, value: str | memoryview) -> str:
        """See `interface.Connection`. PostgreSQL shows bytes that are cast to text as hexadecimal digits."""
        return value if isinstance(value, str) else str(value, "utf-8")

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


class UnansweredCommitError(Exception):
    """The connection was lost after COMMIT was sent: only the server knows what became of it."""

    def __init__(self, number: int, result: Any, cause: psycopg.Error) -> None:
        super().__init__(f"no answer to COMMIT {number}")
        self.number = number
        self.result = result
        self.cause = cause


class Link:
    """One connection, opened when it is needed and again when it was lost. For one thread at a time.

    Each of its transactions that write stores its number, so that after a lost answer to COMMIT the database
    can say whether it took place. PostgreSQL's own transaction ids cannot: a server that crashed gives an id
    that it did not commit to another transaction.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._raw: Raw | None = None
        self._id = secrets.token_hex(16)
        self._number = 0

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
        """Whether a connection is open, as far as is known."""
        return self._raw is not None and not self._raw.closed

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(psycopg.Error):
                if self._number:
                    raw.execute("DELETE FROM commits WHERE link_id = %s", (self._id,))
                raw.close()

    def run(self, job: Job[T], *, is_write: bool = True) -> T:
        """Run `job` in one transaction.

        Raises what the job raises, psycopg.Error, and UnansweredCommitError.
        """
        raw = self.raw
        result = None
        is_ending = False
        try:
            with raw.pipeline() as pipeline:
                raw.execute(_BEGIN_WRITE if is_write else _BEGIN_READ, prepare=False)
                if is_write:
                    self._number += 1
                    raw.execute(_MARK, (self._id, self._number))
                result = job(PostgresConnection(raw, pipeline))
                is_ending = True
                raw.execute("COMMIT", prepare=False)
        except BaseException as error:
            is_lost = not self.is_connected
            if not is_lost:
                with contextlib.suppress(psycopg.Error):
                    raw.execute("ROLLBACK", prepare=False)
            elif is_write and is_ending and isinstance(error, psycopg.Error):
                raise UnansweredCommitError(self._number, result, error) from error
            raise
        return result

    def was_committed(self, number: int) -> bool:
        """Ask whether the transaction of that number, the last one, took place. Raises psycopg.Error."""
        return bool(first_value(self.raw.execute(_LAST_MARK, (self._id,))) == number)


def first_value(cursor: psycopg.Cursor[Any]) -> Any:
    """Return the first column of the first row, which is there."""
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def connection_parameters(url: str) -> dict[str, Any]:
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
    if "," in str(parameters.get("host", parameters.get("hostaddr", ""))):
        defaults["target_session_attrs"] = "read-write"  # after a failover: the one that leads
    return {**defaults, **parameters}


def store_error(error: BaseException) -> StoreError:
    """Translate one of the driver's errors; the original is chained."""
    if isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected):
        return StoreLockedError(first_line(error))
    return StoreError(first_line(error))


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
