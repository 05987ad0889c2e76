"""Data directories of every earlier release: opened, migrated, and all of it still there."""

import sqlite3
from pathlib import Path

import pytest

from sidecar.config import ConfinementSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.store.migrations import MIGRATIONS, SchemaTooNewError, migrate
from tests.fakes.small_sidecar import fake_child
from tests.harness import GATEWAY_KEY, http_client, sidecar_for, text_of
from tests.raw_client import RawClient, plain
from tests.recordings.record_store import DIRECTORY, settings_of

RECORDED = {int(path.stem.removeprefix("v")): path for path in DIRECTORY.glob("v*.sql")}


def schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the definition of each table and index, without the accidents of white space."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows}


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the schema."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def restored(version: int, path: Path | str = ":memory:") -> sqlite3.Connection:
    """Return a database as that version's release left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(RECORDED[version].read_text())
    return connection


def test_every_version_is_recorded() -> None:
    """There is a recorded database for each version of the schema, made by the release that had it."""
    assert sorted(RECORDED) == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("version", sorted(RECORDED))
def test_a_migrated_schema_equals_a_new_one(version: int) -> None:
    """An upgrade ends with the same tables and indexes as an installation."""
    old, new = restored(version), sqlite3.connect(":memory:", isolation_level=None)
    migrate(old)
    migrate(new)
    assert version_of(old) == version_of(new) == len(MIGRATIONS)
    assert schema_of(old) == schema_of(new)


@pytest.mark.parametrize("version", sorted(RECORDED))
async def test_everything_is_still_there(version: int, tmp_path: Path) -> None:
    """A sidecar over an old data directory answers agents, sessions, events and vaults of that time."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    restored(version, data_dir / "sidecar.db").close()
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = settings_of(data_dir, gateway.url)
    child = settings.child.model_copy(update={"binary": fake_child(tmp_path)})
    off = ConfinementSettings(mode="off")  # the fake is a program of the tests
    async with (
        sidecar_for(settings.model_copy(update={"child": child, "confinement": off})) as sidecar,
        http_client(sidecar.url) as http,
    ):
        raw = RawClient(http)
        agents = (await raw.call("GET", "/v1/agents"))["data"]
        assert {agent["name"] for agent in agents} == {"finished", "waiting"}
        sessions = {s["agent"]["name"]: s for s in (await raw.call("GET", "/v1/sessions"))["data"]}
        finished = await raw.events(sessions["finished"]["id"])
        assert text_of(finished) == "done"
        assert finished[-1]["stop_reason"] == {"type": "end_turn"}
        waiting = await raw.events(sessions["waiting"]["id"])
        (call,) = plain(waiting, "agent.tool_use")
        assert waiting[-1]["stop_reason"] == {"type": "requires_action", "event_ids": [call["id"]]}
        (vault,) = (await raw.call("GET", "/v1/vaults"))["data"]
        credentials = (await raw.call("GET", f"/v1/vaults/{vault['id']}/credentials"))["data"]
        assert [c["auth"]["mcp_server_url"] for c in credentials] == ["https://mcp.example/mcp"]
    await gateway.close()


def test_a_newer_schema_is_refused() -> None:
    """A release does not touch what a newer one has written, and says what to do."""
    connection = restored(1)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(SchemaTooNewError, match="run the newer release"):
        migrate(connection)


def test_a_step_that_fails_leaves_the_version_before() -> None:
    """Steps that succeeded stay, the one that failed is undone as a whole, and the next start repeats it."""
    good, bad = "CREATE TABLE extra (x)", "CREATE TABLE half (x); SELECT no_such_function()"
    connection = restored(1)
    steps = (MIGRATIONS[0], good, bad)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, steps)
    assert version_of(connection) == 2
    assert "extra" in schema_of(connection)
    assert "half" not in schema_of(connection)
    migrate(connection, (MIGRATIONS[0], good, "CREATE TABLE half (x)"))
    assert version_of(connection) == 3
