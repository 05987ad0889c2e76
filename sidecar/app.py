"""A running sidecar: every long-lived thing is opened from here, in order, and closed in reverse."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.store.interface import StoreError
from sidecar.wiring.running import RunningSidecar
from sidecar.wiring.services import open_services
from sidecar.wiring.storage import open_storage

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}

__all__ = ["RunningSidecar", "running"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningSidecar]:
    """Start everything, serve, and on leaving drain, checkpoint and stop.

    The child is not waited for. Raises SettingsError when something cannot be opened as configured.
    """
    async with AsyncExitStack() as stack:
        try:
            database = await open_storage(settings, stack)
            sidecar = await open_services(settings, database, stack)
        except OSError as error:
            raise _unusable(error, settings) from error
        except StoreError as error:
            raise SettingsError(f"DATA_DIR: the database cannot be used: {error}") from error
        yield sidecar


def _unusable(error: OSError, settings: Settings) -> Exception:
    """Return what is said of a file or disk that stops the start, the error itself when it is of none."""
    path = error.filename2 or error.filename
    if path is None and error.errno in _OF_DISKS:  # of a file that is open: which one is not known
        path = settings.storage.data_dir
    if path is None:
        return error
    return SettingsError(
        f"DATA_DIR: cannot use {path}: {error.strerror}; make it a writable file system, move what is in "
        "the way, or set another DATA_DIR (and WORKDIR)"
    )
