"""`SIDECAR_WORKSPACE=archive`: the place of the sessions' files, opened and checked. Loaded only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.cluster.ownership import SharedOwnership
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.instruments import Reading
from sidecar.store.interface import ObjectError, Store

if TYPE_CHECKING:
    from sidecar.managed.workspaces.archives import SessionArchives

_CHECK_SECONDS = 30.0


async def open_archives(
    settings: Settings, database: Store, ownership: SharedOwnership
) -> SessionArchives | None:
    """Return what keeps the sessions' files, None unless wanted.

    Raises SettingsError for a bucket or directory that cannot be written, read and deleted from.
    """
    if settings.cluster.workspace != "archive":
        return None
    try:
        from sidecar.managed.workspaces.archives import (  # noqa: PLC0415  # costs no other mode an import
            SessionArchives,
        )
        from sidecar.store.objects import Objects  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            "SIDECAR_WORKSPACE=archive needs the extra `archive`: pip install 'opencode-sidecar[archive]'"
        ) from error
    try:
        objects = Objects.of(settings.archive)
        async with asyncio.timeout(_CHECK_SECONDS):
            await objects.check()
    except (ObjectError, TimeoutError) as error:
        problem = str(error) or f"no answer within {_CHECK_SECONDS:g} s"
        raise SettingsError(
            f"SIDECAR_ARCHIVE_URL: cannot use {settings.archive.url}: {problem}"
        ) from error
    archives = SessionArchives(
        database=database,
        ownership=ownership,
        objects=objects,
        settings=settings.archive,
        storage=settings.storage,
    )
    try:
        await asyncio.to_thread(archives.prepare)
    except OSError as error:
        raise SettingsError(f"DATA_DIR: cannot write {error.filename}: {error.strerror}") from error
    return archives


def archive_readings(archives: SessionArchives) -> Iterator[Reading]:
    """Yield what the metrics show of archives."""
    yield Reading("archives_saved", "Archives of sessions' files made.", archives.saved)
    yield Reading("archive_bytes_saved", "Their size, compressed.", archives.saved_bytes)
    yield Reading("archives_restored", "Sessions whose files came from one.", archives.restored)
    text = (
        "Archives that could not be made or restored: files are on one pod only, or a turn failed."
    )
    yield Reading("archive_failures", text, archives.failed)
    text = "Sockets, devices and unreadable files that archives do not have."
    yield Reading("archive_files_left_out", text, archives.left_out)
