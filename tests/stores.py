"""Stores for tests, in either engine."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from sidecar.config import ClusterSettings, Settings, VaultSettings
from sidecar.store.interface import Store
from sidecar.store.postgres import PostgresStore
from sidecar.store.sqlite import SqliteStore
from tests.postgres import PostgresCluster

ENGINES = ("sqlite", "postgres")
_numbers = itertools.count()


@asynccontextmanager
async def open_store(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Store]:
    """Open an empty store in the engine that the fixture's parameter names; close it afterwards."""
    if request.param == "sqlite":
        file = directory / f"store-{next(_numbers)}.db"
        opened: Store = SqliteStore(file, synchronous="NORMAL")
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        opened = PostgresStore(cluster.url())
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


def on_postgres(settings: Settings, cluster: PostgresCluster) -> Settings:
    """Return the settings with an empty PostgreSQL database instead of SQLite."""
    storage = settings.storage.model_copy(update={"database_url": SecretStr(cluster.url())})
    key = SecretStr(base64.b64encode(b"k" * 32).decode())
    peers = ClusterSettings(key=SecretStr("key between pods"), host="127.0.0.1", port=0)
    return settings.model_copy(
        update={"storage": storage, "vault": VaultSettings(key=key), "cluster": peers}
    )
