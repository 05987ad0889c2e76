"""One boot that we start, from its start to the end of its process: becoming ready, health, the end.

The policy is the supervisor's: it decides what is started, and when a run is to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import structlog

from sidecar.aiokit import TaskOwner, cancel_and_wait
from sidecar.config import ChildSettings
from sidecar.opencode.boot import Boot, Loss
from sidecar.opencode.boot_process import HEALTH_POLL_TIMEOUT_SECONDS, BootProcess
from sidecar.opencode.health import HealthWatch, ProcessStats
from sidecar.opencode.pulse import OVERWORKED, UNRESPONSIVE, Pulse

EXITED = "exited"
STOPPED = "stopped"
NOT_STARTED = "cannot start"
SLOW_START = "start time-out"
"""Why a run is over, besides UNRESPONSIVE ones and the reasons of restarts."""

_STABLE_SECONDS = 60.0
"""A boot that was ready for this long has earned a clean slate."""
_READY_POLL_SECONDS = 0.1

_log = structlog.get_logger(__name__)


class StartFailedError(Exception):
    """A boot did not become ready, and its process has ended. `reason` is one of the above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Observer(Protocol):
    """Who hears of a run. All but `is_stopping` are called on the loop, in order."""

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is to become ready any more."""

    def signs_of_life(self, boot: Boot) -> int:
        """Return a number that changes whenever something has arrived from that boot."""

    def awaited_processes(self) -> Collection[int]:
        """Return the processes whose exit status is awaited here."""

    def note_processes(self, number: int, pids: tuple[int, ...]) -> None:
        """A boot has these processes; its own is first."""

    def note_health(self, boot: Boot, is_healthy: bool) -> None:
        """A health check was answered, or not."""

    def note_process_stats(self, boot: Boot, stats: ProcessStats) -> None:
        """What the kernel says of it now."""

    def note_over(self, run: BootRun) -> None:
        """Its process has exited, or is about to be ended."""

    def note_end(self, boot: Boot, code: int, reason: str) -> None:
        """Its process, and all below it, has ended."""


class BootRun:
    """A run of opencode. `start` first; it ends by itself, or after `finish`."""

    def __init__(
        self, number: int, *, settings: ChildSettings, observer: Observer, tasks: TaskOwner
    ) -> None:
        self.number = number
        self._settings = settings
        self._observer = observer
        self._tasks = tasks
        self._process: BootProcess
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ready_at = 0.0
        self.boot: Boot
        self.version = ""
        self.is_planned = False
        """It was replaced, or is ended for a restart: no crash."""
        self.is_overdue = False
        """It retired, and its turns took too long."""
        self.has_ended = asyncio.Event()

    @property
    def has_exited(self) -> bool:
        """Whether its process is gone."""
        return self._process.has_exited

    @property
    def is_stable(self) -> bool:
        """Whether it has been ready for long."""
        return time.monotonic() - self._ready_at >= _STABLE_SECONDS

    @property
    def reason(self) -> str:
        """Why it is over, empty while it is not."""
        return self._end.result() if self._end.done() else ""

    @property
    def loss(self) -> Loss:
        """What its end means for its turns."""
        if self.has_exited:
            return "exited"
        if self.reason in UNRESPONSIVE:
            return "unresponsive"
        return "overdue" if self.is_overdue else "ended"

    def finish(self, reason: str) -> None:
        """Have it ended; the first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    async def start(self, spawn: Callable[[], Awaitable[BootProcess]]) -> None:
        """Start the process and wait until it is ready. Raises StartFailedError, and OSError from `spawn`."""
        self._process = await spawn()
        process = self._process.process
        self.boot = Boot(self.number, self._process.client, process.pid)
        self._observer.note_processes(self.number, (process.pid, process.guard_pid))
        _log.info("child started", pid=process.pid, boot=self.number, port=self._process.port)
        try:
            self.version = await self._ready_version()
        except BaseException as error:
            self.finish(error.reason if isinstance(error, StartFailedError) else STOPPED)
            self._observer.note_over(self)
            process.kill()
            self._observer.note_end(self.boot, await process.wait(), self.reason)
            raise
        self._ready_at = time.monotonic()
        self._tasks.start(f"boot {self.number}", self._attend())

    def _pulse(self, silence_seconds: float) -> Pulse:
        boot = self.boot
        return Pulse(
            pid=lambda: boot.pid,
            signs=lambda: self._observer.signs_of_life(boot),
            silence_seconds=silence_seconds,
            limit_seconds=max(silence_seconds, self._settings.busy_limit_seconds),
        )

    async def _ready_version(self) -> str:
        """Wait until it answers; return its version. Raises StartFailedError."""
        began = time.monotonic()
        bound = self._settings.start_timeout_seconds
        pulse = self._pulse(bound)
        while not (self.has_exited or self._observer.is_stopping):
            asked = time.monotonic()
            version = await self._process.version()
            if version is not None and not self._observer.is_stopping:
                seconds = round(time.monotonic() - began, 2)
                _log.info("child ready", boot=self.number, seconds=seconds)
                return version
            await asyncio.sleep(_READY_POLL_SECONDS)
            missed = await pulse.missed(
                planned_seconds=HEALTH_POLL_TIMEOUT_SECONDS + _READY_POLL_SECONDS,
                took_seconds=time.monotonic() - asked,
            )
            if missed is not None:
                _log.error("child did not become ready", timeout_seconds=bound, reason=missed)
                raise StartFailedError(OVERWORKED if missed == OVERWORKED else SLOW_START)
        raise StartFailedError(EXITED if self.has_exited else STOPPED)

    async def _attend(self) -> None:
        """Watch it until it has to end, and end it."""
        boot, observer = self.boot, self._observer
        assert boot.pid is not None
        watch = HealthWatch(
            client=boot.client,
            pid=boot.pid,
            awaited=observer.awaited_processes,
            settings=self._settings,
            pulse=self._pulse(self._settings.health_timeout_seconds),
            on_health=lambda is_healthy: observer.note_health(boot, is_healthy),
            on_dead=self.finish,
            on_process_stats=lambda stats: observer.note_process_stats(boot, stats),
        )
        watching = self._tasks.start(f"health {self.number}", watch.run())
        waiting = self._tasks.start(f"exit {self.number}", self._report_exit())
        try:
            reason = await self._end
        finally:
            await cancel_and_wait(watching)
            await cancel_and_wait(waiting)
        observer.note_over(self)
        try:
            code = await self._process.end(is_polite=reason not in UNRESPONSIVE)
            observer.note_end(boot, code, reason)
        finally:
            self.has_ended.set()

    async def _report_exit(self) -> None:
        await self._process.process.wait()
        self.finish(EXITED)
