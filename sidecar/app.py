"""A running sidecar: every long-lived thing is opened from here, in order, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.store.interface import Store, StoreError
from sidecar.wiring.face import Face, open_face
from sidecar.wiring.storage import open_storage
from sidecar.wiring.whole import Sidecar

__all__ = ["Sidecar", "running"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Sidecar]:
    """Start everything, serve, and on leaving drain, checkpoint and stop.

    The HTTP face answers first; the child comes last and is not waited for. Raises SettingsError when
    something cannot be opened as configured.
    """
    async with AsyncExitStack() as stack:
        try:
            database = await open_storage(settings, stack)
            face = await open_face(settings, stack)
            open_rest = await asyncio.to_thread(_load_rest)
            sidecar = await open_rest(settings, database, face, stack)
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


def _load_rest() -> Callable[[Settings, Store, Face, AsyncExitStack], Awaitable[Sidecar]]:
    from sidecar.wiring.rest import open_rest  # noqa: PLC0415  # a third of the start: the face answers

    return open_rest
