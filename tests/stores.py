"""Stores for tests, in either engine."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

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
