"""`opencode-sidecar store`: copies there and back, backups of a live file, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.managed.events.event import Draft
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.postgres import PostgresStore
from sidecar.store.sqlite import SqliteStore
from tests.fakes.scripted_child import new_session
from tests.postgres import PostgresCluster
from tests.sidecar_process import run

KEYS = {
    "SIDECAR_VAULT_KEY": "a2V5IG9mIDMyIGJ5dGVzIGZvciB0aGVzZSB0ZXN0cy4=",
    "SIDECAR_CLUSTER_KEY": "k",
}


async def fill(data_dir: Path) -> SqliteStore:
    """Make a data directory with one session of two events; return its open store."""
    data_dir.mkdir()
    store = SqliteStore(data_dir / "sidecar.db")
    await store.open()
    session_id = await new_session(store)
    await EventLog(database=store).append(session_id, Head(0, 0), [Draft("agent.message")] * 2)
    return store


async def test_a_data_directory_moves_there_and_back(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    """Counts are reported, the sessions belong to that directory, a second copy is refused."""
    first, second = tmp_path / "first", tmp_path / "second"
    await (await fill(first)).close()
    url = postgres.url()
    environment = {"DATABASE_URL": url, **KEYS}
    code, output = await run(
        "store", "copy", "postgres", "--json", DATA_DIR=str(first), **environment
    )
    assert code == 0, output
    assert json.loads(output)["events"] == 2
    code, output = await run("store", "copy", "postgres", DATA_DIR=str(first), **environment)
    assert (code, "is not empty" in output) == (2, True)

    store = PostgresStore(url)
    await store.open()
    homes = await store.read(lambda c: [r[0] for r in c.execute("SELECT home FROM sessions")])
    assert homes == [(first / "identity").read_text().strip()]
    await store.close()

    second.mkdir()
    code, output = await run(
        "store", "copy", "sqlite", "--json", DATA_DIR=str(second), **environment
    )
    assert code == 0, output
    assert json.loads(output)["sessions"] == 1


async def test_a_backup_while_it_is_in_use(tmp_path: Path) -> None:
    """The copy opens, has what was committed, and is not replaced by a second one."""
    store = await fill(tmp_path / "data")
    target = tmp_path / "copy.db"
    arguments = ("store", "backup", str(target))
    code, output = await run(*arguments, DATA_DIR=str(tmp_path / "data"))
    assert code == 0, output
    code, output = await run(*arguments, DATA_DIR=str(tmp_path / "data"))
    assert (code, "never replaces" in output) == (2, True)
    await store.close()
    copied = SqliteStore(target)
    await copied.open()
    events = await copied.read(lambda c: c.execute("SELECT count(*) FROM events").fetchone()[0])
    assert events == 2
    await copied.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("store", "copy", "postgres"), "DATABASE_URL is not set"),
        (("store", "backup", "/nowhere/at/all.db"), "does not exist"),
    ],
)
async def test_what_cannot_be_done(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """One sentence and exit code 2."""
    code, output = await run(*arguments, DATA_DIR=str(tmp_path))
    assert code == 2
    assert says in output
