"""Health checks of the child (busy is not dead, see `pulse`), memory, and reaping of orphaned processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from sidecar.config import ChildSettings
from sidecar.errors import ChildError
from sidecar.opencode.client import ChildClient
from sidecar.opencode.pulse import Pulse
from sidecar.processes import orphans

_ATTEMPTS_PER_TIMEOUT = 4
_PAUSE_SECONDS = 0.25
"""Between attempts while the child does not answer."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """What the kernel says of the process. `maps` is 0 where there is no /proc."""

    rss_bytes: int
    maps: int
    cpu_seconds: float = 0.0
    """User and system time since its start."""
    threads: int = 0

    def complaint(self, settings: ChildSettings) -> str | None:
        """Return why the process should be replaced when idle, None if it is fine."""
        if settings.max_rss_bytes and self.rss_bytes > settings.max_rss_bytes:
            return f"resident size {self.rss_bytes} bytes"
        if settings.max_maps and self.maps > settings.max_maps:
            return f"{self.maps} memory maps"
        return None


def read_process_stats(pid: int, awaited: Collection[int] = ()) -> ProcessStats | None:
    """Return its memory, threads and CPU time, None when it is gone. Blocks; also reaps our orphans, except
    the processes whose exit status is `awaited` elsewhere.
    """
    orphans.reap(owned=(pid, *awaited))
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            rss_bytes = process.memory_info().rss
            times = process.cpu_times()
            threads = process.num_threads()
    except psutil.Error:
        return None
    maps = 0
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_bytes().count(b"\n")
    return ProcessStats(rss_bytes, maps, times.user + times.system, threads)


class HealthWatch:
    """Asks one boot of the child at intervals.

    One unanswered check makes it unhealthy (`on_health(False)`), an answer heals it; what the pulse gives up
    ends in `on_dead(reason)`.
    """

    def __init__(
        self,
        *,
        client: ChildClient,
        pid: int,
        awaited: Callable[[], Collection[int]],
        settings: ChildSettings,
        pulse: Pulse,
        on_health: Callable[[bool], None],
        on_dead: Callable[[str], None],
        on_process_stats: Callable[[ProcessStats], None],
    ) -> None:
        self._client = client
        self._pid = pid
        self._awaited = awaited
        self._settings = settings
        self._pulse = pulse
        self._on_health = on_health
        self._on_dead = on_dead
        self._on_process_stats = on_process_stats

    async def run(self) -> None:
        """Run until cancelled or the child is given up."""
        while True:
            await asyncio.sleep(self._settings.health_interval_seconds)
            if (reason := await self._given_up()) is not None:
                self._on_dead(reason)
                return
            process_stats = await asyncio.to_thread(read_process_stats, self._pid, self._awaited())
            if process_stats is not None:
                self._on_process_stats(process_stats)

    async def _given_up(self) -> str | None:
        """Check until there is an answer; return why there will be none."""
        bound = self._settings.health_timeout_seconds / _ATTEMPTS_PER_TIMEOUT
        await self._pulse.begin()
        reason = None
        while reason is None:
            began = time.monotonic()
            try:
                await self._client.health(timeout_seconds=bound)
            except ChildError:
                self._on_health(False)
                await asyncio.sleep(_PAUSE_SECONDS)
                reason = await self._pulse.missed(
                    planned_seconds=bound + _PAUSE_SECONDS, took_seconds=time.monotonic() - began
                )
            else:
                self._on_health(True)
                self._pulse.answered()
                return None
        return reason
