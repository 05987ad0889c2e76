"""A data directory belongs to one sidecar at a time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from sidecar.demo_gateway import DemoGateway
from sidecar.errors import SettingsError
from sidecar.store.sqlite import SqliteStore
from sidecar.wiring.storage import open_storage
from tests.harness import GATEWAY_KEY, make_settings, sidecar_for
from tests.waiting import until

NOBODY = "http://127.0.0.1:9"


async def test_a_second_sidecar_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """It would sweep the first one's opencode away; the sentence names the directory and the fix."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings, is_ready=False):
        with pytest.raises(SettingsError, match="is used by another sidecar"):
            async with sidecar_for(settings, is_ready=False):
                pass
    async with sidecar_for(settings, is_ready=False) as sidecar:
        assert sidecar.url
    await gateway.close()


@contextlib.asynccontextmanager
async def locked(file: Path) -> AsyncIterator[sqlite3.Connection]:
    """A store that another program has for itself, as a shell of sqlite3 can."""
    database = SqliteStore(file)
    await database.open()
    await database.close()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    yield other
    other.close()


def _times_open(file: Path) -> int:
    """How often this process has it open: a second time when the sidecar has come to the lock."""
    return [Path(entry.path) for entry in psutil.Process().open_files()].count(file.resolve())


async def test_a_locked_store_is_waited_for(tmp_path: Path) -> None:
    """What is locked for a moment does not keep the sidecar from starting."""
    settings = make_settings(tmp_path, NOBODY)
    async with locked(settings.storage.database_file) as other, AsyncExitStack() as stack:
        opening = asyncio.create_task(open_storage(settings, stack))
        await until(lambda: _times_open(settings.storage.database_file) >= 2)
        assert not opening.done()
        other.close()
        assert await (await opening).read(lambda connection: connection.total_changes) == 0


async def test_a_store_that_stays_locked_is_one_clear_sentence(tmp_path: Path) -> None:
    """It names the file and the fix, after ten seconds."""
    settings = make_settings(tmp_path, NOBODY)
    async with locked(settings.storage.database_file), AsyncExitStack() as stack:
        with pytest.raises(
            SettingsError, match=r"DATA_DIR: .*sidecar\.db: another program keeps it"
        ):
            await open_storage(settings, stack)
