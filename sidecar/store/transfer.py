"""Copies everything durable from one store to another, and backs up a SQLite file that is in use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.store.interface import Connection, Store, StoreError

TABLES: Sequence[str] = (
    "agents",
    "agent_versions",
    "environments",
    "vaults",
    "credentials",
    "sessions",
    "session_resources",
    "events",
    "queued_events",
    "child_events",
    "resource_uses",
    "key_check",
)
"""What a copy holds, parents first. Which pods lived and which one owned a session is not copied."""

_OWNERSHIP = frozenset({"owner_boot", "owner_epoch", "home"})
_BATCH = 500
_BATCHES_AHEAD = 4
_POLL_SECONDS = 0.2


@dataclass(slots=True)
class _Batch:
    """Rows of one table. One without columns marks the end of the copy."""

    table: str
    columns: Sequence[str] = ()
    rows: list[list[Any]] = field(default_factory=list)


async def copy(source: Store, target: Store, *, home: str | None = None) -> dict[str, int]:
    """Copy all tables in one transaction of the target; return the number of rows of each.

    With `home` the sessions belong to the pod with that data directory: their files, and what opencode
    remembers of them, are there. Raises StoreError, also for a target that holds anything: nothing is
    merged, and nothing is written then.
    """
    batches: queue.Queue[_Batch] = queue.Queue(_BATCHES_AHEAD)
    is_over = threading.Event()

    def read(connection: Connection) -> None:
        for batch in _read(connection):
            while not is_over.is_set():
                with contextlib.suppress(queue.Full):
                    batches.put(batch, timeout=_POLL_SECONDS)
                    break

    def write(connection: Connection) -> dict[str, int]:
        try:
            return _write(connection, batches, reading, home)
        finally:
            is_over.set()

    reading = asyncio.ensure_future(source.read(read))
    try:
        counts = await target.write(write)
    finally:
        is_over.set()
        await reading
    return counts


def _read(connection: Connection) -> Iterator[_Batch]:
    for table in TABLES:
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608  # our names
        batch = _Batch(table)
        for row in cursor:
            batch.columns = batch.columns or [key for key in dict(row) if key not in _OWNERSHIP]
            batch.rows.append([row[column] for column in batch.columns])
            if len(batch.rows) >= _BATCH:
                yield batch
                batch = _Batch(table, batch.columns)
        if batch.rows:
            yield batch
    yield _Batch("")


def _write(
    connection: Connection,
    batches: queue.Queue[_Batch],
    reading: asyncio.Future[None],
    home: str | None,
) -> dict[str, int]:
    for table in TABLES:
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608  # our names
            raise StoreError(f"it is not empty (table {table}); copies go into a new database")
    counts = dict.fromkeys(TABLES, 0)
    while True:
        try:
            batch = batches.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if reading.done():
                raise StoreError("the source could not be read to its end") from None
            continue
        if not batch.table:
            break
        names, marks = ", ".join(batch.columns), ", ".join("?" * len(batch.columns))
        connection.executemany(
            f"INSERT INTO {batch.table} ({names}) VALUES ({marks})",  # noqa: S608  # our names
            batch.rows,
        )
        counts[batch.table] += len(batch.rows)
    if home is not None:
        connection.execute("UPDATE sessions SET home = ?", (home,))
    return counts


def backup(source: Path, target: Path) -> int:
    """Copy the SQLite file `source`, which may be in use, whole and consistent; return its size in bytes.

    Blocking. Raises StoreError, also for a target that exists, and OSError.
    """
    if not source.exists():
        raise StoreError(f"{source} does not exist")
    if target.exists():
        raise StoreError(f"{target} exists already; a backup never replaces a file")
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as original,
            contextlib.closing(sqlite3.connect(beside)) as copied,
        ):
            original.backup(copied)  # all pages in one step: one snapshot, writers are not held up
            (problem,) = copied.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise StoreError(f"{source} is damaged: {problem}")
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        os.link(beside, target)  # fails when the target came to be meanwhile
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied: {error}") from error
    finally:
        beside.unlink()
        for rest in ("-wal", "-shm", "-journal"):
            beside.with_name(beside.name + rest).unlink(missing_ok=True)
    return target.stat().st_size
