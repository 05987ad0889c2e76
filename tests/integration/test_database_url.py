"""A database that cannot be used: one clear sentence, exit code 2, nothing written."""

from __future__ import annotations

import base64
from pathlib import Path

import psycopg
import pytest

from sidecar.store.migrations_postgres import MIGRATIONS
from sidecar.store.postgres import PostgresStore
from sidecar.store.postgres_schema import migrate
from tests.postgres import PostgresCluster
from tests.sidecar_process import run

KEY = base64.b64encode(b"v" * 32).decode()
OTHER_KEY = base64.b64encode(b"w" * 32).decode()


async def refusal(data_dir: Path, url: str, **settings: str) -> str:
    """Start a sidecar that must refuse; return its sentence."""
    environment = {
        "DATABASE_URL": url,
        "DATA_DIR": str(data_dir),
        "PORT": "0",
        "SIDECAR_ADMIN_PORT": "0",
        "SIDECAR_VAULT_KEY": KEY,
        "SIDECAR_CLUSTER_KEY": "k",
        "SIDECAR_CLUSTER_HOST": "127.0.0.1",
        "SIDECAR_CLUSTER_PORT": "0",
        "SIDECAR_LOG_FORMAT": "json",
        **settings,
    }
    code, output = await run(**{name: value for name, value in environment.items() if value})
    assert code == 2, output
    (sentence,) = [line for line in output.splitlines() if line.startswith("opencode-sidecar: ")]
    assert "Traceback" not in output
    return sentence


def tables(url: str) -> set[str]:
    """Return the tables of the schema."""
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute(query)}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u@h/db", "must begin with postgresql://"),
        ("postgresql://u:s3cr3t@127.0.0.1:1/db", "cannot use postgresql://127.0.0.1:1/db"),
        ("postgresql://u:s3cr3t/x@127.0.0.1/db", "not a PostgreSQL URL"),
    ],
)
async def test_an_url_that_leads_nowhere(tmp_path: Path, url: str, says: str) -> None:
    """It is named, and a password in it is not shown."""
    sentence = await refusal(tmp_path, url)
    assert "DATABASE_URL" in sentence
    assert says in sentence
    assert "s3cr3t" not in sentence


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
        ({"user": "locked:wr0ng"}, "password authentication failed"),
        ({"user": "stranger"}, 'role "stranger" does not exist'),
        ({"database": "absent"}, 'database "absent" does not exist'),
        ({"database": "postgres?sslmode=require"}, "server does not support SSL"),
        ({"database": "postgres?no_such_option=1"}, "not a PostgreSQL URL"),
        ({"port": "x"}, "not a PostgreSQL URL"),
    ],
)
async def test_a_server_that_does_not_let_us_in(
    tmp_path: Path, postgres: PostgresCluster, wrong: dict[str, str], says: str
) -> None:
    """One part of a right URL is wrong: the sentence has the server's or the library's own reason."""
    if "locked" in wrong.get("user", ""):
        with psycopg.connect(postgres.base_url(), autocommit=True) as raw:
            raw.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        postgres.require_password("locked")
    right = {"user": "postgres", "host": "127.0.0.1", "port": postgres.port, "database": "postgres"}
    url = "postgresql://{user}@{host}:{port}/{database}".format_map({**right, **wrong})
    sentence = await refusal(tmp_path, url)
    assert "DATABASE_URL" in sentence
    assert says in sentence
    assert "wr0ng" not in sentence


async def test_a_role_that_may_make_no_tables(tmp_path: Path, postgres: PostgresCluster) -> None:
    """The server's reason, and nothing is made."""
    url = postgres.url()
    with psycopg.connect(postgres.base_url(), autocommit=True) as raw:
        raw.execute("CREATE ROLE guest LOGIN")
    with psycopg.connect(url, autocommit=True) as raw:
        (schema,) = raw.execute("SELECT current_schema()").fetchone() or ("",)
        raw.execute(f"GRANT USAGE ON SCHEMA {schema} TO guest")
    sentence = await refusal(tmp_path, url.replace("postgres@", "guest@"))
    assert "permission denied" in sentence
    assert tables(url) == set()


@pytest.mark.parametrize("name", ["SIDECAR_VAULT_KEY", "SIDECAR_CLUSTER_KEY"])
async def test_without_the_keys_of_all_pods(
    tmp_path: Path, postgres: PostgresCluster, name: str
) -> None:
    """No key, no start; the sentence says which, why, and how to make one."""
    url = postgres.url()
    sentence = await refusal(tmp_path, url, **{name: ""})
    assert f"DATABASE_URL needs {name}" in sentence
    assert tables(url) == set()


async def test_with_an_opencode_that_runs_elsewhere(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    """It could not be ended when another pod takes its sessions."""
    attached = {
        "OPENCODE_URL": "http://127.0.0.1:1",
        "OPENCODE_SERVER_PASSWORD": "p",
        "SIDECAR_RELAY_TOKEN": "t",
        "SIDECAR_RELAY_PORT": "1",
    }
    sentence = await refusal(tmp_path, postgres.url(), **attached)
    assert "OPENCODE_URL cannot be used with DATABASE_URL" in sentence


async def test_a_newer_schema(tmp_path: Path, postgres: PostgresCluster) -> None:
    """It is left alone, with advice."""
    url = postgres.url()
    with psycopg.connect(url, autocommit=True) as raw:
        migrate(raw)
        raw.execute("UPDATE schema_version SET version = %s", (len(MIGRATIONS) + 1,))
    assert "run the newer release" in await refusal(tmp_path, url)


async def test_a_role_that_may_only_read(tmp_path: Path, postgres: PostgresCluster) -> None:
    """Nothing is made in its schema."""
    with psycopg.connect(postgres.base_url(), autocommit=True) as raw:
        raw.execute("CREATE ROLE onlooker LOGIN")
        raw.execute("ALTER ROLE onlooker SET default_transaction_read_only = on")
    url = postgres.url(role="onlooker")
    assert "read-only" in await refusal(tmp_path, url)
    assert tables(url) == set()


async def test_a_database_that_is_full(tmp_path: Path, postgres: PostgresCluster) -> None:
    """It says what the server says, before anything is served."""
    url = postgres.url()
    with psycopg.connect(url, autocommit=True) as raw:
        migrate(raw)
        raw.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'could not extend file: No space left on device' "
            "USING ERRCODE = '53100'; END $$"
        )
        raw.execute("CREATE TRIGGER full_disk BEFORE INSERT ON boots EXECUTE FUNCTION full_disk()")
    sentence = await refusal(tmp_path, url)
    assert "DATABASE_URL: cannot write" in sentence
    assert "No space left" in sentence


async def test_another_clusters_vault_key(tmp_path: Path, postgres: PostgresCluster) -> None:
    """The first pod decided the key, also before there is any secret."""
    from sidecar.managed.vaults.encryption import open_shared_secret_box

    url = postgres.url()
    store = PostgresStore(url)
    await store.open()
    await open_shared_secret_box(database=store, key=OTHER_KEY)
    await store.close()
    sentence = await refusal(tmp_path, url)
    assert "SIDECAR_VAULT_KEY is not the key" in sentence
    assert KEY not in sentence
