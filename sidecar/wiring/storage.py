"""The data directory: locked, made, opened."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.config import Settings, StorageSettings
from sidecar.errors import SettingsError
from sidecar.store.interface import Store, StoreError, StoreLockedError
from sidecar.store.lock import DirectoryInUseError, DirectoryLock
from sidecar.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from sidecar.store.postgres import PostgresStore

_LOCKED = "another program keeps it locked (a backup, a shell of sqlite3); end that and start again"


async def open_storage(settings: Settings, stack: AsyncExitStack) -> Store:
    """Return the open database. Raises SettingsError that names the variable and the fix."""
    storage = settings.storage
    try:
        for directory in (storage.data_dir, storage.workspaces_dir):
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot use {error.filename}: {error.strerror}; set DATA_DIR (and WORKDIR) to "
            "writable directories"
        ) from error
    for directory in (storage.data_dir, storage.workspaces_dir):
        if not os.access(directory, os.W_OK | os.X_OK):
            name = "DATA_DIR" if directory.is_relative_to(storage.data_dir) else "WORKDIR"
            raise SettingsError(
                f"{name}: this user (uid {os.getuid()}) cannot write in {directory}; make it writable, or "
                "set DATA_DIR (and WORKDIR) to writable directories"
            )
    for directory in (storage.data_dir, storage.data_dir / "opencode"):
        await asyncio.to_thread(_refuse_special_files, directory)
    lock_data_dir(storage, stack)
    if storage.database_url is not None:
        database: Store = await open_postgres(storage)
    else:
        database = await open_sqlite(storage)
    stack.push_async_callback(database.close)
    return database


def _refuse_special_files(directory: Path) -> None:
    """Raise SettingsError for a pipe or a device: opening one for a file may wait without end."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.is_fifo() or path.is_char_device() or path.is_block_device():
            raise SettingsError(f"DATA_DIR: {path} is a pipe or a device; move it away")


def lock_data_dir(storage: StorageSettings, stack: AsyncExitStack) -> None:
    """Keep other sidecars off the data directory. Raises SettingsError when one has it."""
    lock = DirectoryLock(storage.data_dir)
    try:
        lock.acquire()
    except DirectoryInUseError as error:
        raise SettingsError(
            f"DATA_DIR: {storage.data_dir} is used by another sidecar (pid {error.pid}); stop it or set "
            "another DATA_DIR"
        ) from error
    stack.callback(lock.release)


async def open_sqlite(storage: StorageSettings) -> Store:
    """Return the open file of the data directory. Raises SettingsError."""
    _refuse_emptied(storage)
    database = SqliteStore(storage.database_file, synchronous=storage.synchronous)
    try:
        await database.open()
    except (OSError, StoreError) as error:
        name = "DB_PATH" if storage.db_path else "DATA_DIR"
        problem = _LOCKED if isinstance(error, StoreLockedError) else str(error)
        raise SettingsError(f"{name}: cannot use {storage.database_file}: {problem}") from error
    return database


def _refuse_emptied(storage: StorageSettings) -> None:
    """Raise SettingsError for a database of 0 bytes beside a key: the key is made after the first schema.

    A start would take it for a new one, and what was stored would be missing without a word.
    """
    file, key = storage.database_file, storage.key_file
    try:
        is_emptied = file.stat().st_size == 0 and key.exists()
    except OSError:
        return
    if is_emptied:
        raise SettingsError(
            f"DATA_DIR: {file} is empty, but {key} is of an earlier run: the database was lost (a full or "
            "damaged disk, a copy that broke off); restore it, or delete both to begin anew"
        )


async def open_postgres(storage: StorageSettings) -> PostgresStore:
    """Return the open database. Raises SettingsError, which never shows the password."""
    try:
        from sidecar.store.postgres import (  # noqa: PLC0415  # SQLite costs not one import more
            PostgresStore,
        )
    except ImportError as error:
        raise SettingsError(
            "DATABASE_URL: needs the extra `postgres`: pip install 'opencode-sidecar[postgres]'"
        ) from error
    assert storage.database_url is not None
    where = ""
    try:
        database = PostgresStore(
            storage.database_url.get_secret_value(),
            patience_seconds=storage.database_patience_seconds,
        )
        where = f"cannot use {database.location}: "
        await database.open()
    except StoreError as error:
        raise SettingsError(f"DATABASE_URL: {where}{error}") from error
    return database


async def refuse_live_pods(database: Store) -> None:
    """Raise SettingsError while a sidecar works on that PostgreSQL."""
    query = "SELECT pod FROM boots WHERE expires_at > clock_timestamp() ORDER BY pod"
    pods = await database.read(lambda connection: [row[0] for row in connection.execute(query)])
    if pods:
        raise SettingsError(
            f"DATABASE_URL: {database.location} is in use by {', '.join(pods)}; stop those first"
        )
