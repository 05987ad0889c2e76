"""What tests of all folders share: the databases that a store can be in, and `rg` on the path."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.store.interface import Store
from tests.postgres import PostgresCluster
from tests.stores import ENGINES, open_store


@pytest.fixture(scope="session", autouse=True)
def ripgrep(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have `rg` on PATH, where opencode looks for it, also on a machine that has none.

    In a folder of its own: with the whole virtual environment on PATH, its Python would be the agents'.
    """
    if shutil.which("rg") is None:
        folder = tmp_path_factory.mktemp("programs")
        folder.chmod(0o755)
        shutil.copy(Path(sys.executable).with_name("rg"), folder / "rg")
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server of the tests' own."""
    cluster = PostgresCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(params=ENGINES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store, once in each engine."""
    async with open_store(request, tmp_path) as opened:
        yield opened
