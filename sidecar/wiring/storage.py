"""The data directory: locked, made, opened."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.store.interface import Store, StoreError, StoreLockedError
from sidecar.store.lock import DirectoryInUseError, DirectoryLock
from sidecar.store.sqlite import SqliteStore

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
    lock = DirectoryLock(storage.data_dir)
    try:
        lock.acquire()
    except DirectoryInUseError as error:
        raise SettingsError(
            f"DATA_DIR: {storage.data_dir} is used by another sidecar (pid {error.pid}); stop it or set "
            "another DATA_DIR"
        ) from error
    stack.callback(lock.release)
    database = SqliteStore(storage.database_file, synchronous=storage.synchronous)
    try:
        await database.open()
    except (OSError, StoreError) as error:
        name = "DB_PATH" if storage.db_path else "DATA_DIR"
        problem = _LOCKED if isinstance(error, StoreLockedError) else str(error)
        raise SettingsError(f"{name}: cannot use {storage.database_file}: {problem}") from error
    stack.push_async_callback(database.close)
    return database
