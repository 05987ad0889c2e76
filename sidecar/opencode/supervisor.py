"""Keep one child running: when to start, when it is ready, when to give up on it. Policy only.

    stopped -> starting -> ready <-> degraded -> draining -> stopping -> stopped
                  |          |          |
                  +----------+----------+--> backing_off -> starting, or after too many: failed

Ready means that `/global/health` answers; nothing is read from the child's output. A planned restart
(`request_restart`) aborts every turn, so it waits until nobody is busy, and for that may hold new turns: see
`planned_restart`. A dead or silent child is replaced at once, after a growing delay. One that is only busy is
not silent (`pulse`), and when it is given up all the same that is no crash.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import structlog

from sidecar.aiokit import Backoff, TaskOwner, cancel_and_wait
from sidecar.config import ChildSettings
from sidecar.errors import SettingsError
from sidecar.opencode.boot import HEALTH_POLL_TIMEOUT_SECONDS, Boot
from sidecar.opencode.child import Child, IsBusy, never_busy
from sidecar.opencode.environment import ChildFiles, RelayAccess, find_binary
from sidecar.opencode.health import HealthWatch
from sidecar.opencode.pulse import OVERWORKED, Pulse
from sidecar.processes.process import ChildProcess

_STABLE_SECONDS = 60.0
"""A child that was ready for this long has earned a clean slate."""
_READY_POLL_SECONDS = 0.1
_IDLE_POLL_SECONDS = 1.0
"""How often a pending restart looks whether the turns have ended."""
_LAST_LINES = 20

_log = structlog.get_logger(__name__)


class Supervisor(Child):
    """Owns the child process. `start` once, `stop` once."""

    def __init__(
        self,
        *,
        settings: ChildSettings,
        files: ChildFiles,
        session: aiohttp.ClientSession,
        relay: Callable[[], RelayAccess],
        inherited: Mapping[str, str],
        is_busy: IsBusy = never_busy,
        confining: Sequence[str] = (),
    ) -> None:
        super().__init__(settings, is_busy=is_busy)
        self._files = files
        self._session = session
        self._relay = relay
        self._inherited = inherited
        self._confining = confining
        self._tasks = TaskOwner("child", on_crash=self._crashed)
        self._main: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._dead_because: str | None = None
        self._was_planned = False
        self._backoff = Backoff(first=settings.restart_first_delay_seconds)
        self._crashes = 0

    async def start(self) -> None:
        """Begin supervising and return at once."""
        if self._main is None:
            self._main = self._tasks.start("supervise", self._run())

    async def stop(self) -> None:
        """End the child and all below it: dispose, SIGTERM, SIGKILL. A drain comes before it."""
        self._is_stopping = True
        self._wake.set()
        self._settled.set()
        if self._main is not None:
            await asyncio.gather(self._main, return_exceptions=True)
        await self._tasks.close()
        if not self.failed.is_set():
            self._set_state("stopped")

    async def _run(self) -> None:
        try:
            binary = find_binary(self._settings.binary, search_path=self._inherited.get("PATH"))
        except SettingsError as error:
            self._fail(error.message)
            return
        await asyncio.to_thread(self._files.prepare)
        while True:
            stable = await self._one_boot(binary)
            if self._is_stopping:
                return
            if self._was_planned or self._dead_because == OVERWORKED:
                continue
            if stable:
                self._backoff.reset()
                self._crashes = 0
            self._crashes += 1
            if self._crashes >= self._settings.crash_loop_limit:
                words = "; ".join(list(self._lines)[-3:]) or "it printed nothing"
                self._fail(f"it ended {self._crashes} times in a row; last output: {words}")
                return
            if not await self._backs_off():
                return

    async def _backs_off(self) -> bool:
        """Wait for the next try; return whether there is to be one."""
        delay = self._backoff.next_delay()
        self._retry_at = time.monotonic() + delay
        self._set_state("backing_off")
        _log.warning(
            "child ended, backing off", delay_seconds=round(delay, 2), crashes=self._crashes
        )
        while not self._is_stopping and (left := self._retry_at - time.monotonic()) > 0:
            await self._pause(left)
        return not self._is_stopping

    async def _one_boot(self, binary: Path) -> bool:
        """Run one child to its end; return whether it had been ready for long."""
        self._set_state("starting")
        self._was_planned, self._dead_because = False, None
        self._restart.clear()  # this start is the restart
        try:
            boot = await Boot.spawn(
                binary,
                settings=self._settings,
                files=self._files,
                session=self._session,
                relay=self._relay(),
                inherited=self._inherited,
                confining=self._confining,
                keep_line=self._lines.append,
            )
        except OSError as error:
            self._lines.append(f"cannot start {binary}: {error}")
            self._note_exit(-1, "cannot start")
            return False
        self.boot += 1
        self.pid = boot.process.pid
        _log.info("child started", pid=self.pid, boot=self.boot, port=boot.port)
        exit_watch = self._tasks.start("exit", self._wake_at_exit(boot.process))
        reason, ready_at = "start time-out", None
        try:
            if await self._becomes_healthy(boot):
                ready_at = time.monotonic()
                reason = await self._serve(boot)
        finally:
            await self._end(boot, reason, is_polite=ready_at is not None and not self._dead_because)
            await cancel_and_wait(exit_watch)
        return ready_at is not None and time.monotonic() - ready_at >= _STABLE_SECONDS

    def _pulse(self, boot: Boot, silence_seconds: float) -> Pulse:
        return Pulse(
            pid=lambda: boot.process.pid,
            signs=self.signs_of_life,
            silence_seconds=silence_seconds,
            limit_seconds=max(silence_seconds, self._settings.busy_limit_seconds),
        )

    async def _becomes_healthy(self, boot: Boot) -> bool:
        began = time.monotonic()
        bound = self._settings.start_timeout_seconds
        pulse = self._pulse(boot, bound)
        while boot.process.returncode is None and not self._is_stopping:
            asked = time.monotonic()
            if (version := await boot.version()) is not None and not self._is_stopping:
                self.note_version(version)
                self._client = boot.client
                self._become_ready()
                _log.info("child ready", boot=self.boot, seconds=round(time.monotonic() - began, 2))
                return True
            await self._pause(_READY_POLL_SECONDS)
            reason = await pulse.missed(
                planned_seconds=HEALTH_POLL_TIMEOUT_SECONDS + _READY_POLL_SECONDS,
                took_seconds=time.monotonic() - asked,
            )
            if reason is not None:
                _log.error("child did not become ready", timeout_seconds=bound, reason=reason)
                self._dead_because = reason
                return False
        return False

    async def _serve(self, boot: Boot) -> str:
        """Stay until the boot should end; return why."""
        watch = HealthWatch(
            client=boot.client,
            pid=boot.process.pid,
            settings=self._settings,
            pulse=self._pulse(boot, self._settings.health_timeout_seconds),
            on_health=self._note_health,
            on_dead=self._note_dead,
            on_process_stats=self._note_process_stats,
        )
        health = self._tasks.start("health", watch.run())
        try:
            while True:
                if boot.process.returncode is not None:
                    return "exited"
                if self._is_stopping:
                    return "stopped"
                if self._dead_because is not None:
                    return self._dead_because
                if await self._is_restart_due():
                    self._was_planned = True
                    return self._restart.reason or ""
                await self._pause(_IDLE_POLL_SECONDS if self._restart.reason else None)
        finally:
            await cancel_and_wait(health)

    async def _end(self, boot: Boot, reason: str, *, is_polite: bool) -> None:
        self._set_state("stopping" if boot.process.returncode is None else "backing_off")
        code = await boot.end(is_polite=is_polite)
        self._client = self.pid = self.process_stats = None
        self._note_exit(code, reason)
        _log.info("child ended", boot=self.boot, code=code, reason=reason)

    async def _wake_at_exit(self, process: ChildProcess) -> None:
        await process.wait()
        self._wake.set()

    def _note_dead(self, reason: str) -> None:
        self._dead_because = reason
        self._wake.set()

    def _crashed(self, task: str, error: BaseException) -> None:
        if task.endswith(":supervise"):
            self._fail(f"supervision failed: {error}")
