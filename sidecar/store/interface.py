"""What the rest of the program knows of a database: jobs, rows, one error.

A job is a plain function of a `Connection`. It runs in one transaction on a thread of the store, must
not touch asyncio, and sees what was committed before. SQL is written with `?` for parameters and in the
subset that SQLite and PostgreSQL share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Parameters = Sequence[Any]


class StoreError(Exception):
    """The database failed: unreachable, locked, full, damaged, or it refused a statement.

    Raised instead of the driver's own errors, which are chained. Whatever a job did is undone.
    """


class StoreLockedError(StoreError):
    """Another program holds a lock for longer than the store waits."""


class SchemaTooNewError(StoreError):
    """A newer release has written the database; going back needs a copy from before the upgrade."""


class ObjectError(Exception):
    """A bucket, or the directory in its place, failed or refused; says what it said, without keys."""


class Row(Protocol):
    """One row: by column name, by position, as an iterable of values; `dict(row)` works."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]:
        """Return the names of the columns."""


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    def fetchone(self) -> Any:
        """Return the next `Row`, or None."""

    def fetchall(self) -> list[Any]:
        """Return the `Row`s that are left."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """What a job gets. It begins and ends no transaction: the store does."""

    def execute(self, sql: str, parameters: Parameters = ..., /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run one statement for each set of parameters."""

    def lock_row(self, table: str, id_: str, *, is_shared: bool = False) -> None:
        """Keep others from changing that row until the transaction ends.

        For jobs that read, check and then write. With `is_shared` others may lock it so, too. SQLite has
        one writer and needs nothing.
        """

    def text(self, value: str | memoryview) -> Any:
        """Return the parameter for `CAST(? AS TEXT)`; a memoryview holds UTF-8.

        SQLite gets its bytes as they are: as a string they would be in memory once more.
        """

    def note_erasure(self) -> None:
        """Say that the job deletes a secret: SQLite's file and its log shall not hold it any more.

        PostgreSQL keeps old rows until it vacuums, and its write-ahead log as it is configured to.
        """


Job = Callable[[Connection], T]


class Store(Protocol):
    """Everything durable. `read` and `write` may be called by any task on the event loop."""

    @property
    def location(self) -> str:
        """Where the data is, for messages; without a password."""

    @property
    def queued_writes(self) -> int:
        """Jobs that wait for a writer; growth means that the database does not keep up."""

    def size_bytes(self) -> int:
        """Return how much the database occupies, 0 when that is not known here."""

    async def open(self) -> None:
        """Create or migrate the schema and start the threads. Raises StoreError, OSError."""

    async def close(self) -> None:
        """Run what is queued and close."""

    async def write(self, job: Job[T]) -> T:
        """Run `job` in a transaction and return its result once it is committed.

        Cancelling the caller does not take the job back: it is committed or refused as a whole. What the
        job raises reaches the caller; the database's own errors do so as StoreError.
        """

    async def read(self, job: Job[T]) -> T:
        """Run `job`, which must change nothing. Raises as `write` does."""
