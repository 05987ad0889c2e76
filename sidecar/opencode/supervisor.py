"""Keep one child running: when to start, when it is ready, when to give up on it. Policy only.

    stopped -> starting -> ready <-> degraded -> draining -> stopping -> stopped
                  |          |          |
                  +----------+----------+--> backing_off -> starting, or after too many: failed

Ready means that `/global/health` answers; nothing is read from the child's output. A planned restart
(`request_restart`) waits until nobody is busy, because it aborts every turn; a dead or silent child is
replaced at once, after a growing delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import structlog

from sidecar.aiokit import Backoff, TaskOwner, cancel_and_wait
from sidecar.config import ChildSettings
from sidecar.errors import ChildUnavailableError, SettingsError
from sidecar.opencode import orphans
from sidecar.opencode.boot import Boot, sweep
from sidecar.opencode.client import ChildClient
from sidecar.opencode.environment import ChildFiles, RelayAccess, find_binary
from sidecar.opencode.health import HealthWatch, Vitals
from sidecar.opencode.process import ChildProcess

State = Literal[
    "stopped", "starting", "ready", "degraded", "draining", "stopping", "backing_off", "failed"
]
StateCallback = Callable[[State, int], None]
"""Called with the new state and the boot number, on the loop, in order."""
ExitCallback = Callable[["ChildExit"], None]

_SERVING: frozenset[State] = frozenset({"ready", "degraded", "draining"})
_STABLE_SECONDS = 60.0
"""A child that was ready for this long has earned a clean slate."""
_READY_POLL_SECONDS = 0.1
_IDLE_POLL_SECONDS = 1.0
"""How often a pending restart looks whether the turns have ended."""
_USUAL_BOOT_SECONDS = 5.0
_LAST_LINES = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How a boot ended. `code` is minus the signal number for a signal."""

    boot: int
    code: int
    reason: str
    at: float
    """Seconds since the epoch."""


class Supervisor:
    """Owns the child process. `start` once, `stop` once."""

    def __init__(
        self,
        *,
        settings: ChildSettings,
        files: ChildFiles,
        session: aiohttp.ClientSession,
        relay: Callable[[], RelayAccess],
        inherited: Mapping[str, str],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._files = files
        self._session = session
        self._relay = relay
        self._inherited = inherited
        self._is_busy = is_busy
        self._tasks = TaskOwner("child", on_crash=self._crashed)
        self._main: asyncio.Task[None] | None = None
        self._callbacks: list[StateCallback] = []
        self._exit_callbacks: list[ExitCallback] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._client: ChildClient | None = None
        self._marker = ""
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._is_stopping = False
        self._is_dead = False
        self._restart_reason: str | None = None
        self._restart_forced = False
        self._backoff = Backoff(first=settings.restart_first_delay_seconds)
        self._crashes = 0
        self._retry_at = 0.0
        self.state: State = "stopped"
        self.boot = 0
        """Counts successful spawns."""
        self.pid: int | None = None
        self.last_exit: ChildExit | None = None
        self.vitals: Vitals | None = None
        self.version = ""
        self.failure = ""
        """Why the state is `failed`: one sentence for people."""
        self.failed = asyncio.Event()

    @property
    def client(self) -> ChildClient | None:
        """The client of the current boot while it serves, else None."""
        return self._client if self.state in _SERVING else None

    @property
    def restarts(self) -> int:
        """How often the child was replaced, planned or not."""
        return max(0, self.boot - 1)

    @property
    def restart_pending(self) -> str | None:
        """Why a restart waits for idle, None if none does."""
        return self._restart_reason

    def on_state_change(self, callback: StateCallback) -> None:
        """Call `callback` at every change from now on."""
        self._callbacks.append(callback)

    def on_exit(self, callback: ExitCallback) -> None:
        """Call `callback` with the end of every boot from now on."""
        self._exit_callbacks.append(callback)

    async def start(self) -> None:
        """Begin supervising and return at once."""
        if self._main is None:
            self._main = self._tasks.start("supervise", self._run())

    async def wait_ready(self, timeout_seconds: float) -> ChildClient:
        """Return the client, waiting for a child that is down. Raises ChildUnavailableError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self.state not in ("ready", "degraded"):
                    if self.failed.is_set() or self._is_stopping or self.state == "draining":
                        break
                    await self._settled.wait()
        if self.client is not None and self.state != "draining":
            return self.client
        if self.failed.is_set():
            raise ChildUnavailableError(f"opencode cannot be started: {self.failure}")
        left = max(0.0, self._retry_at - time.monotonic())
        raise ChildUnavailableError(
            f"opencode is not ready ({self.state})", retry_after_seconds=left + _USUAL_BOOT_SECONDS
        )

    def drain(self) -> None:
        """Announce the end: running turns keep their client, `wait_ready` refuses new ones."""
        if self.state in ("ready", "degraded"):
            self._set_state("draining")

    def request_restart(self, reason: str, *, force: bool = False) -> None:
        """Replace the child when nobody is busy, or with `force` now."""
        if self._restart_reason is None:
            _log.info("child restart requested", reason=reason, force=force)
        self._restart_reason = reason
        self._restart_forced |= force
        self._wake.set()

    def report_poison(self, directory: Path) -> None:
        """A directory answers nothing but config errors any more; only a restart heals it."""
        _log.warning("directory poisoned in child", directory=str(directory))
        self.request_restart("poisoned directory")

    async def stop(self) -> None:
        """End the child: dispose, SIGTERM, SIGKILL, sweep. Whoever drains does so before."""
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
        await asyncio.to_thread(self._prepare)
        while True:
            stable = await self._one_boot(binary)
            was_planned = self._planned_end()
            if self._is_stopping:
                return
            if was_planned:
                continue
            if stable:
                self._backoff.reset()
                self._crashes = 0
            self._crashes += 1
            if self._crashes >= self._settings.crash_loop_limit:
                words = "; ".join(list(self._lines)[-3:]) or "it printed nothing"
                self._fail(f"it ended {self._crashes} times in a row; last words: {words}")
                return
            if not await self._backs_off():
                return

    def _prepare(self) -> None:
        self._files.prepare()
        self._marker = orphans.load_marker(self._files.marker_file)
        orphans.become_subreaper()
        if killed := orphans.sweep(self._marker):
            _log.warning("leftover processes of an earlier run killed", count=killed)

    def _planned_end(self) -> bool:
        reason, self._restart_reason, self._restart_forced = self._restart_reason, None, False
        return reason is not None and self.last_exit is not None and self.last_exit.reason == reason

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
        self._is_dead = False
        self._restart_reason, self._restart_forced = None, False  # this start is the restart
        try:
            boot = await Boot.spawn(
                binary,
                settings=self._settings,
                files=self._files,
                session=self._session,
                relay=self._relay(),
                inherited=self._inherited,
                marker=self._marker,
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
            await self._end(boot, reason, is_polite=ready_at is not None and not self._is_dead)
            await cancel_and_wait(exit_watch)
        return ready_at is not None and time.monotonic() - ready_at >= _STABLE_SECONDS

    async def _becomes_healthy(self, boot: Boot) -> bool:
        began = time.monotonic()
        bound = self._settings.start_timeout_seconds
        while boot.process.returncode is None and not self._is_stopping:
            if time.monotonic() - began > bound:
                _log.error("child did not become ready", timeout_seconds=bound)
                return False
            if (version := await boot.version()) is not None:
                self.version = version
                self._client = boot.client
                self._set_state("ready")
                _log.info("child ready", boot=self.boot, seconds=round(time.monotonic() - began, 2))
                return True
            await self._pause(_READY_POLL_SECONDS)
        return False

    async def _serve(self, boot: Boot) -> str:
        """Stay until the boot should end; return why."""
        watch = HealthWatch(
            client=boot.client,
            pid=boot.process.pid,
            settings=self._settings,
            on_health=self._note_health,
            on_dead=self._note_dead,
            on_vitals=self._note_vitals,
        )
        health = self._tasks.start("health", watch.run())
        try:
            while True:
                if boot.process.returncode is not None:
                    return "exited"
                if self._is_stopping:
                    return "stopped"
                if self._is_dead:
                    return "no answer to health checks"
                if self._restart_reason and (self._restart_forced or not self._is_busy()):
                    return self._restart_reason
                await self._pause(_IDLE_POLL_SECONDS if self._restart_reason else None)
        finally:
            await cancel_and_wait(health)

    async def _end(self, boot: Boot, reason: str, *, is_polite: bool) -> None:
        self._set_state("stopping" if boot.process.returncode is None else "backing_off")
        code = await boot.end(is_polite=is_polite)
        self._client = self.pid = self.vitals = None
        self._note_exit(code, reason)
        killed = await sweep(self._marker)
        _log.info("child ended", boot=self.boot, code=code, reason=reason, swept=killed)

    async def _wake_at_exit(self, process: ChildProcess) -> None:
        await process.wait()
        self._wake.set()

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _note_exit(self, code: int, reason: str) -> None:
        self.last_exit = ChildExit(self.boot, code, reason, time.time())
        for callback in self._exit_callbacks:
            callback(self.last_exit)

    def _note_health(self, is_healthy: bool) -> None:
        if self.state == "ready" and not is_healthy:
            _log.warning("child does not answer health check", boot=self.boot)
            self._set_state("degraded")
        elif self.state == "degraded" and is_healthy:
            self._set_state("ready")

    def _note_dead(self) -> None:
        self._is_dead = True
        self._wake.set()

    def _note_vitals(self, vitals: Vitals) -> None:
        self.vitals = vitals
        complaint = vitals.complaint(self._settings)
        if complaint is not None and self._restart_reason is None:
            self.request_restart(complaint)

    def _crashed(self, task: str, error: BaseException) -> None:
        if task.endswith(":supervise"):
            self._fail(f"supervision failed: {error}")

    def _fail(self, sentence: str) -> None:
        _log.error("child given up", reason=sentence)
        self.failure = sentence
        self._set_state("failed")
        self.failed.set()

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        if state in ("ready", "degraded", "draining", "failed"):
            self._settled.set()
        elif not self._is_stopping:
            self._settled.clear()
        for callback in self._callbacks:
            callback(state, self.boot)
