"""Gives memory back to the system after large bodies.

glibc keeps what was freed for later, in the arena of the thread that asked for it; a burst of large bodies
would otherwise stay in the resident size for good. With another C library this does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes

from sidecar.aiokit import TaskOwner

_LARGE_BYTES = 1024 * 1024
_PAUSE_SECONDS = 2.0
"""From the last use of the body to the return, so that a burst costs one. A return takes milliseconds."""


class MemoryReturn:
    """Notes what was freed; after something large, returns free memory once things are quiet."""

    def __init__(self, tasks: TaskOwner) -> None:
        self._tasks = tasks
        self._is_planned = False

    def note(self, freed_bytes: int) -> None:
        """So many bytes are not needed any more."""
        if freed_bytes >= _LARGE_BYTES and not self._is_planned:
            self._is_planned = True
            self._tasks.start("memory return", self._run())

    async def _run(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        self._is_planned = False
        await asyncio.to_thread(return_free_memory)


def return_free_memory() -> None:
    """Return free memory to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
