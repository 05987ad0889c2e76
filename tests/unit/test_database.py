"""The store: commits are durable and shared, a failing job harms no other, migrations go forward only."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.store.interface import Connection, StoreError
from sidecar.store.migrations import MIGRATIONS, SchemaTooNewError, migrate
from sidecar.store.sqlite import SqliteStore


def put(name: str) -> object:
    def job(connection: Connection) -> str:
        connection.execute(
            "INSERT INTO agents (id, version, created_at) VALUES (?, 1, 'now')", (name,)
        )
        return name

    return job


def count(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM agents").fetchone()[0])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "below" / "x.db", synchronous="NORMAL")
    await opened.open()
    yield opened
    await opened.close()


async def test_a_write_is_seen_by_reads_and_by_others_when_it_returns(
    database: SqliteStore,
) -> None:
    """After `await write` another connection sees the row."""
    assert await database.write(put("a")) == "a"
    assert await database.read(count) == 1
    other = sqlite3.connect(database.path)
    assert count(other) == 1
    other.close()


async def test_a_failing_job_undoes_only_itself(database: SqliteStore) -> None:
    """Of many jobs in one commit the bad one raises at its caller and leaves nothing behind."""

    def half_done(connection: Connection) -> None:
        put("half")(connection)  # type: ignore[operator]  # a plain function
        raise ValueError("changed my mind")

    jobs = [put("a"), half_done, put("b"), put("a"), put("c")]
    results = await asyncio.gather(*map(database.write, jobs), return_exceptions=True)
    assert [r if isinstance(r, str) else type(r) for r in results] == [
        "a",
        ValueError,
        "b",
        StoreError,
        "c",
    ]
    assert await database.read(count) == 3


async def test_writes_keep_the_order_in_which_they_were_asked(database: SqliteStore) -> None:
    """A later job sees what an earlier one wrote."""
    seen = await asyncio.gather(
        *(database.write(lambda c, n=n: (count(c), put(str(n))(c))[0]) for n in range(300))
    )
    assert seen == list(range(300))


async def test_space_on_a_full_disk_is_waited_for(database: SqliteStore) -> None:
    """A write that found no room is tried again, and done once; what came with it waits, too."""
    attempts = 0

    def large(connection: Connection) -> str:
        nonlocal attempts
        attempts += 1
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if attempts < 3 else 1_000_000}")
        return put("x" * 100_000)(connection)  # type: ignore[operator,no-any-return]  # a plain function

    results = await asyncio.gather(database.write(large), database.write(put("b")))
    assert results[1] == "b"
    assert attempts == 3
    assert await database.read(count) == 2


async def test_a_disk_that_stays_full_is_an_error(tmp_path: Path) -> None:
    """After the patience; and from then on at once, until a write succeeds again."""
    opened = SqliteStore(tmp_path / "x.db", synchronous="NORMAL", full_patience_seconds=0.3)
    await opened.open()

    def large(connection: Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        put("x" * 100_000)(connection)  # type: ignore[operator]  # a plain function

    with pytest.raises(StoreError, match="full"):
        await opened.write(large)
    with pytest.raises(StoreError, match="full"):
        await opened.write(large)
    assert await opened.write(put("small")) == "small"
    await opened.close()


async def test_an_erased_secret_is_in_no_file(database: SqliteStore) -> None:
    """Neither in the database nor in its write-ahead log, as soon as the job that erased it is committed."""
    secret = "an-erased-secret" * 20

    def erase(connection: Connection) -> None:
        connection.note_erasure()
        connection.execute("DELETE FROM agents WHERE id = ?", (secret,))

    def raw() -> bytes:
        return b"".join(path.read_bytes() for path in database.path.parent.iterdir())

    await database.write(put(secret))
    for number in range(50):
        await database.write(put(f"other {number}"))
    assert secret.encode() in raw()
    await database.write(erase)
    assert secret.encode() not in raw()
    assert await database.read(count) == 50


async def test_a_cancelled_caller_leaves_the_store_sound(database: SqliteStore) -> None:
    """The job is committed or refused as a whole, and the next one works."""
    task = asyncio.create_task(database.write(put("x")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.write(put("y"))
    assert await database.read(count) in {1, 2}


async def test_close_commits_what_waits_and_checkpoints(tmp_path: Path) -> None:
    """Queued writes are done, the WAL is empty, and the store says that it is closed."""
    database = SqliteStore(tmp_path / "x.db")
    await database.open()
    writes = [asyncio.create_task(database.write(put(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*writes)) == 50
    wal = tmp_path / "x.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    with pytest.raises(StoreError, match="closed"):
        await database.write(put("late"))
    with pytest.raises(StoreError, match="closed"):
        await database.read(count)


async def test_the_file_is_private(database: SqliteStore) -> None:
    """Other users can read neither events nor credentials."""
    assert database.path.stat().st_mode & 0o077 == 0


def test_migrations_bring_any_version_to_the_newest() -> None:
    """From each older version the missing steps run, once."""
    for version in range(len(MIGRATIONS) + 1):
        connection = sqlite3.connect(":memory:")
        for number, script in enumerate(MIGRATIONS[:version], start=1):
            connection.executescript(f"{script};PRAGMA user_version={number}")
        migrate(connection)
        migrate(connection)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert count(connection) == 0


def test_a_newer_file_is_refused() -> None:
    """A file of a newer release is left alone, with advice."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(SchemaTooNewError, match="newer release"):
        migrate(connection)
