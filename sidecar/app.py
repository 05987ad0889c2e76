"""A running sidecar: every long-lived thing is opened from here, in order, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.config import Settings
from sidecar.store.interface import Store
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
        database = await open_storage(settings, stack)
        face = await open_face(settings, stack)
        open_rest = await asyncio.to_thread(_load_rest)
        yield await open_rest(settings, database, face, stack)


def _load_rest() -> Callable[[Settings, Store, Face, AsyncExitStack], Awaitable[Sidecar]]:
    from sidecar.wiring.rest import open_rest  # noqa: PLC0415  # a third of the start: the face answers

    return open_rest
