"""PostgreSQL as the store: lost servers, conflicts, databases that cannot be used, and copies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from sidecar.managed.events.event import Draft
from sidecar.managed.events.log import EventLog, Head
from sidecar.store import transfer
from sidecar.store.interface import Connection, SchemaTooNewError, StoreError
from sidecar.store.migrations_postgres import MIGRATIONS
from sidecar.store.postgres import PostgresStore
from sidecar.store.postgres_schema import migrate
from sidecar.store.sqlite import SqliteStore
from tests.fakes.pooler import Pooler
from tests.fakes.scripted_child import new_session
from tests.postgres import PostgresCluster
from tests.waiting import PATIENCE_SECONDS, until


def insert(name: str) -> Any:
    """Return a job that stores an agent."""

    def job(connection: Connection) -> str:
        connection.execute(
            "INSERT INTO agents (id, version, created_at) VALUES (?, 1, 'now')", (name,)
        )
        return name

    return job


def names(connection: Connection) -> list[str]:
    """Return the stored agents."""
    return [row["id"] for row in connection.execute("SELECT id FROM agents ORDER BY id")]


@pytest.fixture
async def store(postgres: PostgresCluster) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(postgres.url())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresCluster]:
    """A server of this module's own, to be crashed: durable, as in production."""
    cluster = PostgresCluster(fsync="on")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


async def test_a_failing_job_undoes_only_itself(store: PostgresStore) -> None:
    """What a job did before it raised is gone, and its neighbours' work is not."""

    def half_done(connection: Connection) -> None:
        insert("half")(connection)
        raise ValueError("changed my mind")

    jobs = [insert("a"), half_done, insert("b")]
    results = await asyncio.gather(*map(store.write, jobs), return_exceptions=True)
    assert [r if isinstance(r, str) else type(r) for r in results] == ["a", ValueError, "b"]
    with pytest.raises(StoreError, match="duplicate key"):
        await store.write(insert("a"))
    assert await store.read(names) == ["a", "b"]


async def test_rows_are_read_by_name_and_by_place(store: PostgresStore) -> None:
    """As with SQLite: by column name, by position, as a sequence, as a dict."""
    await store.write(insert("a"))

    def select(connection: Connection) -> Any:
        return connection.execute("SELECT id, version FROM agents").fetchone()

    row = await store.read(select)
    assert (row["id"], row[1], list(row), dict(row)) == (
        "a",
        1,
        ["a", 1],
        {"id": "a", "version": 1},
    )


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
async def test_text_that_cannot_be_stored_matches_nothing(store: PostgresStore, text: str) -> None:
    """A client's id with a NUL or half a surrogate pair is an unknown id, not a failing database."""
    await store.write(insert("a"))
    found = await store.read(
        lambda c: c.execute("SELECT id FROM agents WHERE id = ?", (text,)).fetchall()
    )
    assert found == []


async def test_a_percent_sign_is_a_percent_sign(store: PostgresStore) -> None:
    """The driver's placeholders do not show through in SQL that has any of their letters."""
    found = await store.read(lambda c: c.execute("SELECT 'a%s' || ? AS t", ("b",)).fetchone())
    assert found["t"] == "a%sb"


async def test_conflicting_transactions_are_repeated(store: PostgresStore) -> None:
    """Two jobs that lock two rows in opposite order: one is the deadlock's victim, and both succeed."""
    await store.write(insert("a"))
    await store.write(insert("b"))

    both_hold_one = threading.Barrier(2)

    def crossing(first: str, second: str) -> Any:
        runs: list[int] = []

        def job(connection: Connection) -> None:
            connection.lock_row("agents", first)
            connection.execute("SELECT 1").fetchone()  # what was sent before has been done
            runs.append(1)
            if len(runs) == 1:  # the victim is run again, when the other one is done
                both_hold_one.wait(PATIENCE_SECONDS)
            connection.lock_row("agents", second)
            connection.execute("UPDATE agents SET version = version + 1 WHERE id = ?", (first,))

        return job

    await asyncio.gather(store.write(crossing("a", "b")), store.write(crossing("b", "a")))
    versions = await store.read(
        lambda c: [row[0] for row in c.execute("SELECT version FROM agents ORDER BY id")]
    )
    assert versions == [2, 2]
    assert store.repeated_jobs >= 1


async def test_a_crash_of_the_server_loses_and_doubles_nothing(fragile: PostgresCluster) -> None:
    """Appends go on while the server is crashed and started: each event is there once, in order."""
    store = PostgresStore(fragile.url(), patience_seconds=PATIENCE_SECONDS)
    await store.open()
    session_id = await new_session(store)
    log, head, stop = EventLog(database=store), Head(0, 0), asyncio.Event()

    count = 0

    async def append() -> None:
        nonlocal count
        while not stop.is_set():
            await log.append(session_id, head, [Draft("agent.message", {"n": count})])
            count += 1

    appending = asyncio.create_task(append())
    for _ in range(3):
        reached = count + 10
        await until(lambda: count >= reached or appending.done())  # noqa: B023  # called at once
        assert not appending.done(), await appending
        await asyncio.to_thread(fragile.stop, "immediate")
        await asyncio.to_thread(fragile.start)
    stop.set()
    await appending
    stored = [event.body["n"] async for event in log.events_after(session_id, 0)]
    assert stored == list(range(count))
    assert store.reconnects >= 3
    await store.close()


async def test_an_answer_to_commit_that_was_lost_is_asked_for(
    store: PostgresStore, postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server committed, the connection broke before it could say so: the job is not run twice."""
    real = psycopg.Connection.execute
    lost = []

    def execute(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        done = real(self, query, *arguments, **options)
        if query == "COMMIT" and not lost:
            lost.append(query)
            self.close()
            raise psycopg.OperationalError("the connection is lost")
        return done

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    runs = []

    def job(connection: Connection) -> str:
        runs.append(1)
        return str(insert("once")(connection))

    assert await store.write(job) == "once"
    assert (len(runs), await store.read(names)) == (1, ["once"])


async def test_a_commit_that_another_transaction_got_the_id_of_is_repeated(
    fragile: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashed knows a transaction no longer, and gives its id away: the job is run again."""
    store = PostgresStore(fragile.url(), patience_seconds=PATIENCE_SECONDS)
    await store.open()
    real = psycopg.Connection.execute
    lost = []

    def execute(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        if query == "COMMIT" and not lost:
            lost.append(query)
            fragile.stop("immediate")
            fragile.start()
            with psycopg.connect(fragile.url(), autocommit=True) as other:
                for _ in range(20):
                    other.execute("SELECT pg_current_xact_id()")
            self.close()
            raise psycopg.OperationalError("the connection is lost")
        return real(self, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    assert await store.write(insert("once")) == "once"
    assert await store.read(names) == ["once"]
    await store.close()


async def test_a_server_that_stays_away_fails_the_job(fragile: PostgresCluster) -> None:
    """After the patience the caller gets the store's error, and the next job works again."""
    store = PostgresStore(fragile.url(), patience_seconds=0.3)
    await store.open()
    await asyncio.to_thread(fragile.stop, "fast")
    try:
        with pytest.raises(StoreError):
            await store.write(insert("a"))
        with pytest.raises(StoreError):
            await store.read(names)
    finally:
        await asyncio.to_thread(fragile.start)
    assert await store.write(insert("a")) == "a"
    await store.close()


async def test_a_cancelled_caller_leaves_after_its_job(store: PostgresStore) -> None:
    """The next commit of the same session must not run beside the one that was cancelled."""

    def slow(connection: Connection) -> None:
        connection.execute("SELECT pg_sleep(0.3)")
        insert("slow")(connection)

    task = asyncio.create_task(store.write(slow))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.read(names) == ["slow"]


def test_a_newer_schema_is_refused(postgres: PostgresCluster) -> None:
    """A release does not touch what a newer one has written, and says what to do."""
    url = postgres.url()
    with psycopg.connect(url, autocommit=True) as raw:
        migrate(raw)
        raw.execute("UPDATE schema_version SET version = %s", (len(MIGRATIONS) + 1,))
        with pytest.raises(SchemaTooNewError, match="run the newer release"):
            migrate(raw)


def test_a_step_that_fails_leaves_the_version_before(postgres: PostgresCluster) -> None:
    """Steps that succeeded stay, the one that failed is undone as a whole, the next start repeats it."""
    steps = (*MIGRATIONS, "CREATE TABLE extra (x INT)", "CREATE TABLE half (x INT); SELECT 1 / 0")
    with psycopg.connect(postgres.url(), autocommit=True) as raw:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(raw, steps)
        known = {row[0] for row in raw.execute(_TABLES)}
        assert "extra" in known
        assert "half" not in known
        migrate(raw, (*steps[:-1], "CREATE TABLE half (x INT)"))


async def test_pods_that_start_together_migrate_once(postgres: PostgresCluster) -> None:
    """Eight stores open one new database at the same time."""
    url = postgres.url()
    stores = [PostgresStore(url) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize("url", ["postgresql://h:port/db", "postgresql://u:s3cr3t%zz@h/db"])
def test_a_malformed_url_is_refused_without_being_shown(url: str) -> None:
    """It may hold a password, also in a place where none belongs."""
    with pytest.raises(StoreError, match="not a PostgreSQL URL") as caught:
        PostgresStore(url)
    assert "s3cr3t" not in str(caught.value)


async def test_everything_is_copied_there_and_back(store: PostgresStore, tmp_path: Path) -> None:
    """SQLite to PostgreSQL to SQLite: the same rows in every table."""
    first, second = SqliteStore(tmp_path / "a.db"), SqliteStore(tmp_path / "b.db")
    await first.open()
    await second.open()
    session_id = await new_session(first)
    log = EventLog(database=first)
    idle = Draft("session.status_idle", {"stop_reason": {"type": "end_turn"}})
    await log.append(
        session_id, Head(0, 0), [Draft("agent.message", {"text": "\0é"})] * 1200 + [idle]
    )
    await first.write(lambda c: c.execute("INSERT INTO key_check VALUES (?)", (b"\0sealed",)))

    there = await transfer.copy(first, store, home="here")
    back = await transfer.copy(store, second)
    assert there == back
    assert there["events"] == 1201

    def everything(connection: Connection) -> list[list[tuple[Any, ...]]]:
        return [
            sorted(map(tuple, connection.execute(f"SELECT * FROM {table}")))
            for table in transfer.TABLES
        ]

    assert await first.read(everything) == await second.read(everything)
    with pytest.raises(StoreError, match="not empty"):
        await transfer.copy(first, store)
    await first.close()
    await second.close()


async def test_a_backup_of_a_busy_file_is_whole(tmp_path: Path) -> None:
    """While commits go on, the copy is a state that was committed; and it never replaces a file."""
    store = SqliteStore(tmp_path / "a.db")
    await store.open()
    stop = asyncio.Event()

    def pair(number: int) -> Any:
        def job(connection: Connection) -> None:
            insert(f"{number}-a")(connection)
            insert(f"{number}-b")(connection)

        return job

    async def write() -> None:
        number = 0
        while not stop.is_set():
            await store.write(pair(number))
            number += 1

    writing = asyncio.create_task(write())
    target = tmp_path / "copy.db"
    await asyncio.to_thread(transfer.backup, store.path, target)
    stop.set()
    await writing
    await store.close()
    with pytest.raises(StoreError, match="never replaces"):
        transfer.backup(store.path, target)
    assert target.stat().st_mode & 0o077 == 0
    copied = SqliteStore(target)
    await copied.open()
    found = await copied.read(names)
    assert len(found) % 2 == 0
    await copied.close()


async def test_a_read_only_database_is_refused(postgres: PostgresCluster) -> None:
    """A standby, or a role that may not write: one sentence, and nothing was tried."""
    address = urlsplit(postgres.base_url())
    with psycopg.connect(postgres.base_url(), autocommit=True) as raw:
        raw.execute("CREATE ROLE reader LOGIN")
        raw.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    store = PostgresStore(f"postgresql://reader@{address.hostname}:{address.port}/postgres")
    with pytest.raises(StoreError, match="read-only"):
        await store.open()


@pytest.mark.parametrize("pins", [False, True], ids=["transaction", "session"])
async def test_a_pooler_in_transaction_mode_is_refused(
    postgres: PostgresCluster, *, pins: bool
) -> None:
    """Prepared statements and settings would be another program's; in session mode all is well."""
    pooler = Pooler(postgres.port, pins=pins)
    await pooler.start()
    url = urlsplit(postgres.url())
    where = f"127.0.0.1:{urlsplit(pooler.url).port}"
    store = PostgresStore(
        f"postgresql://postgres@{where}/postgres?{url.query}&sslmode=disable&gssencmode=disable"
    )
    try:
        if pins:
            await store.open()
            assert await store.read(lambda c: c.execute("SELECT 1").fetchone()[0]) == 1
            await store.close()
        else:
            with pytest.raises(StoreError, match="transaction mode"):
                await store.open()
    finally:
        await pooler.close()


async def test_a_server_that_leads_no_more_is_left(postgres: PostgresCluster) -> None:
    """After a failover the connections that are open lead to a server that only reads: the job is run again
    where it can write."""
    url = urlsplit(postgres.base_url())
    with psycopg.connect(postgres.base_url(), autocommit=True) as raw:
        raw.execute("CREATE ROLE demoted LOGIN")
        raw.execute("CREATE SCHEMA demoted AUTHORIZATION demoted")
    store = PostgresStore(f"postgresql://demoted@{url.hostname}:{url.port}/postgres")
    await store.open()
    try:

        def demote(connection: Connection) -> None:
            connection.execute("SET default_transaction_read_only = on")

        await asyncio.gather(*(store.write(demote) for _ in range(20)))  # whichever writer takes it
        for number in range(8):
            await store.write(insert(f"agent_{number}"))
        assert len(await store.read(names)) == 8
        assert store.reconnects
    finally:
        await store.close()


_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
