"""`opencode-sidecar store`: move everything between SQLite and PostgreSQL, back a running SQLite up."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

from sidecar.commands import output
from sidecar.commands.gateway import load_settings
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.store.identity import identity_of
from sidecar.store.interface import Store, StoreError
from sidecar.store.transfer import backup, copy
from sidecar.wiring.storage import (
    lock_data_dir,
    open_postgres,
    open_sqlite,
    refuse_live_pods,
)

Target = Literal["postgres", "sqlite"]


def copy_main(*, target: Target, as_json: bool) -> int:
    """Copy the whole store. Raises CommandError when one of them cannot be used."""
    settings = load_settings()
    if settings.storage.database_url is None:
        raise output.CommandError(
            "DATABASE_URL is not set: it names the PostgreSQL to copy to or from",
            exit_code=output.EXIT_USAGE,
        )
    output.quiet_logs(is_verbose=False)
    try:
        counts = asyncio.run(_copy(settings, target))
    except (SettingsError, StoreError) as error:
        raise output.CommandError(str(error), exit_code=output.EXIT_USAGE) from error
    if as_json:
        output.print_json(counts)
        return output.EXIT_OK
    output.print_text("\n".join(f"{table}: {count}" for table, count in counts.items()))
    key = settings.storage.key_file
    if target == "postgres" and key.exists():
        output.stderr().print(
            f"The stored secrets were copied as they are: SIDECAR_VAULT_KEY must be the content of {key}."
        )
    return output.EXIT_OK


async def _copy(settings: Settings, target: Target) -> dict[str, int]:
    storage = settings.storage
    if target == "postgres" and not storage.database_file.exists():
        raise SettingsError(f"DATA_DIR: there is no {storage.database_file} to copy")
    async with AsyncExitStack() as stack:
        lock_data_dir(storage, stack)
        sqlite = await open_sqlite(storage)
        stack.push_async_callback(sqlite.close)
        postgres: Store = await open_postgres(storage)
        stack.push_async_callback(postgres.close)
        await refuse_live_pods(postgres)
        if target == "postgres":
            return await copy(sqlite, postgres, home=identity_of(storage.data_dir))
        return await copy(postgres, sqlite)


def backup_main(*, target: Path, as_json: bool) -> int:
    """Back up the SQLite file of the data directory. Raises CommandError."""
    settings = load_settings()
    if settings.storage.database_url is not None:
        raise output.CommandError(
            "DATABASE_URL is set: back PostgreSQL up by its own means (pg_dump, base backups)",
            exit_code=output.EXIT_USAGE,
        )
    try:
        size = backup(settings.storage.database_file, target)
    except (StoreError, OSError) as error:
        raise output.CommandError(str(error), exit_code=output.EXIT_USAGE) from error
    if as_json:
        output.print_json({"file": str(target), "size_bytes": size})
        return output.EXIT_OK
    output.print_text(f"{target}: {size} bytes")
    key = settings.storage.key_file
    if key.exists():
        output.stderr().print(f"Back up {key}, too: without it the stored secrets are lost.")
    return output.EXIT_OK
