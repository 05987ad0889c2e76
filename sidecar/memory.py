"""Gives memory back to the system after large bodies.

glibc keeps what was freed for later, in the arena of the thread that asked for it. Large pieces are kept
apart (`keep_large_apart`), so that each goes back when it is freed; what many small ones took is given back
once things are quiet (`MemoryReturn`). With another C library this does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes

from sidecar.aiokit import TaskOwner

_LARGE_BYTES = 1024 * 1024
_PAUSE_SECONDS = 2.0
"""From the last use of the body to the return, so that a burst costs one. A return takes milliseconds."""


_M_MMAP_THRESHOLD = -3
"""`M_MMAP_THRESHOLD` of glibc's malloc.h."""


def keep_large_apart() -> None:
    """Have every piece of 1 MiB and more mapped on its own, as is the default until the first is freed.

    From then on glibc takes them from the arenas of the threads, where each thread keeps what it has freed:
    a body that three threads work on stays in memory three times.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


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
