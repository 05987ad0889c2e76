"""A running sidecar: every long-lived thing is opened from here, in order, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.store.interface import Store, StoreError
from sidecar.wiring.public_listener import PublicListener, open_public_listener
from sidecar.wiring.running import RunningSidecar
from sidecar.wiring.storage import open_storage

__all__ = ["RunningSidecar", "running"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningSidecar]:
    """Start everything, serve, and on leaving drain, checkpoint and stop.

    The public listener answers first; the child comes last and is not waited for. Raises SettingsError when
    something cannot be opened as configured.
    """
    async with AsyncExitStack() as stack:
        try:
            database = await open_storage(settings, stack)
            listener = await open_public_listener(settings, stack)
            open_services = await asyncio.to_thread(_load_services)
            sidecar = await open_services(settings, database, listener, stack)
        except OSError as error:
            raise _unusable(error) from error
        except StoreError as error:
            raise SettingsError(f"DATA_DIR: the database cannot be used: {error}") from error
        yield sidecar


def _unusable(error: OSError) -> Exception:
    """Return what is said of a file that stops the start, the error itself when it is of none."""
    path = error.filename2 or error.filename
    if path is None:
        return error
    return SettingsError(
        f"DATA_DIR: cannot use {path}: {error.strerror}; make it a writable file system, move what is in "
        "the way, or set another DATA_DIR (and WORKDIR)"
    )


def _load_services() -> Callable[
    [Settings, Store, PublicListener, AsyncExitStack], Awaitable[RunningSidecar]
]:
    from sidecar.wiring.services import open_services  # noqa: PLC0415  # a third of the start

    return open_services
