"""Keep opencode running: when to start a boot, when it is ready, when to give up on it. Policy only.

    stopped -> starting -> ready <-> degraded -> draining -> stopping -> stopped
                  |          |          |
                  +----------+----------+--> backing_off -> starting, or after too many: failed

This is the state of the current boot, which takes new turns. Ready means that `/global/health` answers;
nothing is read from opencode's output.

A boot that is to be replaced (`request_restart`) goes on until the next one is ready, and then retires: it
keeps the turns that it has until they have ended, for a bounded time, so that none is cut. One retires at a
time; another replacement waits for its end. A dead or silent boot costs its own turns, and is replaced after
a growing delay, or at once by a spare, where one is kept. A busy one is not silent (`pulse`), and when it is
given up all the same, which does not count as a crash.

When the very first start fails, the executable is asked for its version. One that prints none is no opencode
that runs here: a wrong setting, given up at once. Whatever else ends is a crash, and tried again.

Only one opencode can listen on a port that is set (`OPENCODE_PORT`): then a planned restart waits for a
moment without turns (`planned_restart`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import aiohttp
import structlog

from sidecar.aiokit import Backoff, TaskOwner, cancel_and_wait
from sidecar.config import ChildSettings
from sidecar.errors import ChildError, SettingsError
from sidecar.opencode.boot import Boot
from sidecar.opencode.boot_process import BootProcess
from sidecar.opencode.boot_run import NOT_STARTED, STOPPED, BootRun, StartFailedError
from sidecar.opencode.child import Child, IsBusy, never_busy
from sidecar.opencode.environment import ChildFiles, RelayAccess, build_environment
from sidecar.opencode.executable import ask_version, find_binary
from sidecar.opencode.pulse import OVERWORKED

_IDLE_POLL_SECONDS = 1.0
"""How often it is looked whether turns have ended, where a restart or a retiring boot waits for that."""
_LAST_LINES = 20

_log = structlog.get_logger(__name__)


class Supervisor(Child):
    """Owns opencode's processes. `start` once, `stop` once."""

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
        self._numbers = itertools.count(1)
        self._runs: set[BootRun] = set()
        self._first: BootRun | None = None
        """The one that starts where there is no other."""
        self._spare: BootRun | None = None
        self._making_spare: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._backoff = Backoff(first=settings.restart_first_delay_seconds)
        self._crashes = 0
        self._replacing_backoff = Backoff(first=settings.restart_first_delay_seconds)
        self._replace_at = 0.0
        self._spare_backoff = Backoff(first=settings.restart_first_delay_seconds)
        self._spare_at = 0.0
        self._is_opencode = False
        """What is started has answered, or printed its version: a later end is a crash."""

    async def start(self) -> None:
        """Begin supervising and return at once."""
        if self._main is None:
            self._main = self._tasks.start("supervise", self._run())

    async def stop(self) -> None:
        """End every boot and all below it: dispose, SIGTERM, SIGKILL. A drain comes before it."""
        self._is_stopping = True
        self._wake.set()
        self._settled.set()
        if self._main is not None:
            await asyncio.gather(self._main, return_exceptions=True)
        await cancel_and_wait(self._making_spare)
        runs = list(self._runs)
        for run in runs:
            run.finish(STOPPED)
        await asyncio.gather(*(run.has_ended.wait() for run in runs))
        await self._tasks.close()
        if not self.failed.is_set():
            self._set_state("stopped")

    # -- the current boot --------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.to_thread(self._files.prepare)
        while await self._serve_once():
            pass

    async def _serve_once(self) -> bool:
        """Serve new turns until there is no boot for them; return whether there is to be another one."""
        try:
            run = await self._serve(await self._next())
        except StartFailedError as error:
            reason, is_planned = error.reason, False
        else:
            reason, is_planned = run.reason, run.is_planned
            if run.is_stable:
                self._backoff.reset()
                self._crashes = 0
        if not (self._is_stopping or self._is_opencode):
            await self._examine()
        if self._is_stopping or self.failed.is_set():
            return False
        return is_planned or reason == OVERWORKED or await self._may_go_on()

    async def _examine(self) -> None:
        """Fail unless what is started is an opencode that runs here, or that cannot be known now."""
        asking = self._tasks.start("version", self._ask_version())
        while not (self._is_stopping or asking.done()):
            await self._pause(None)
        await cancel_and_wait(asking)

    async def _ask_version(self) -> None:
        nothing = RelayAccess("", "")
        try:
            await ask_version(
                self._find_binary(),
                confining=self._confining,
                env=build_environment(
                    self._files, inherited=self._inherited, password="", relay=nothing
                ),
                cwd=self._files.cwd,
            )
            self._is_opencode = True
        except SettingsError as error:
            self._fail(error.message, is_misconfigured=True)
        except ChildError as error:
            _log.warning("opencode cannot be examined", reason=error.message)
        finally:
            self._wake.set()

    async def _next(self) -> BootRun:
        """Return a boot for new turns where there is none. Raises StartFailedError."""
        if self._making_spare is not None:
            self._set_state("starting")
            await asyncio.wait({self._making_spare})
        run, self._spare = self._spare, None
        if run is None or run.boot.is_over:
            run = await self._start(is_alone=True)
        self._is_opencode = True
        self.note_version(run.version)
        self._become_current(run.boot)
        return run

    async def _serve(self, run: BootRun) -> BootRun:
        """Keep a boot for new turns, that one or its successors, until it is over; return the last one."""
        while not self._is_stopping:
            if run.boot.is_over:
                if self._spare is None:
                    await run.has_ended.wait()
                break
            self._keep_spare()
            if self._settings.port == 0:
                if self._is_replacement_due:
                    run = await self._replace(run)
                    continue
            elif await self._is_restart_due():
                run.is_planned = True
                run.finish(self._restart.reason or "")
                await run.has_ended.wait()
                break
            lacks_spare = self._settings.spare and self._spare is None
            is_waiting = self._restart.reason is not None or lacks_spare
            await self._pause(_IDLE_POLL_SECONDS if is_waiting else None)
        return run

    async def _may_go_on(self) -> bool:
        """Count a crash and wait for the next try; return whether there is to be one."""
        self._crashes += 1
        if self._crashes >= self._settings.crash_loop_limit:
            words = "; ".join(list(self._lines)[-3:]) or "it printed nothing"
            self._fail(f"it ended {self._crashes} times in a row; last output: {words}")
            return False
        if self._spare is not None:
            return True
        delay = self._backoff.next_delay()
        self._retry_at = time.monotonic() + delay
        self._set_state("backing_off")
        _log.warning(
            "child ended, backing off", delay_seconds=round(delay, 2), crashes=self._crashes
        )
        while not self._is_stopping and (left := self._retry_at - time.monotonic()) > 0:
            await self._pause(left)
        return not self._is_stopping

    # -- replacement -------------------------------------------------------------------------------

    @property
    def _is_replacement_due(self) -> bool:
        is_wanted = self._restart.reason is not None and not self._is_draining
        return is_wanted and self._retiring is None and time.monotonic() >= self._replace_at

    async def _replace(self, run: BootRun) -> BootRun:
        """Start a boot beside that one; return the one that takes new turns from now on."""
        reason = self._restart.reason or ""
        # What is wanted is a new process: a spare may have the old program, and memory is for two.
        await self._end_spare(reason)
        _log.info("opencode is being replaced", boot=run.boot.number, reason=reason)
        try:
            successor = await self._start(is_alone=False)
        except StartFailedError as error:
            delay = self._replacing_backoff.next_delay()
            self._replace_at = time.monotonic() + delay
            if not self._is_stopping:
                _log.error(
                    "opencode cannot be replaced now",
                    reason=reason,
                    failure=error.reason,
                    retry_seconds=round(delay, 1),
                )
            return run
        self._replacing_backoff.reset()
        if not run.boot.is_over:
            self._retiring = run.boot
            self._tasks.start(f"retire {run.boot.number}", self._see_out(run, reason))
        self.note_version(successor.version)
        self._become_current(successor.boot)
        return successor

    async def _see_out(self, run: BootRun, reason: str) -> None:
        """End a boot when its turns have ended, or have had their time.

        Those that only wait for their client can go on in another boot, so they are waited for less long.
        """
        now = time.monotonic()
        patient_until = now + self._settings.restart_patience_seconds
        deadline = now + self._settings.retirement_seconds
        run.is_planned = True
        while not run.boot.is_over:
            now = time.monotonic()
            if not await self._is_busy(run.boot, with_waiting=now < patient_until):
                break
            if now >= deadline:
                run.is_overdue = True
                _log.warning("turns of a retiring opencode are cut", boot=run.boot.number)
                break
            await asyncio.sleep(_IDLE_POLL_SECONDS)
        run.finish(reason)
        await run.has_ended.wait()
        self._retiring = None
        self._wake.set()

    # -- the spare ---------------------------------------------------------------------------------

    def _keep_spare(self) -> None:
        """Have a boot ready for the case that the current one dies. While one retires there is none."""
        is_wanted = self._settings.spare and not self._is_draining
        is_room = self._spare is None and self._making_spare is None and self._retiring is None
        is_time = self._restart.reason is None and time.monotonic() >= self._spare_at
        if is_wanted and is_room and is_time:
            self._making_spare = self._tasks.start("spare", self._make_spare())

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._start(is_alone=False)
        except StartFailedError:
            self._spare_at = time.monotonic() + self._spare_backoff.next_delay()
        else:
            self._spare_backoff.reset()
        finally:
            self._making_spare = None
            self._wake.set()

    async def _end_spare(self, reason: str) -> None:
        await cancel_and_wait(self._making_spare)
        run, self._spare = self._spare, None
        if run is not None:
            run.finish(reason)
            await run.has_ended.wait()

    # -- one boot ----------------------------------------------------------------------------------

    async def _start(self, *, is_alone: bool) -> BootRun:
        """Start a boot and wait until it is ready. Raises StartFailedError.

        `is_alone` says that there is no other one for new turns, so that the state follows this one.
        """
        run = BootRun(
            next(self._numbers), settings=self._settings, observer=self, tasks=self._tasks
        )
        if is_alone:
            self._set_state("starting")
            self._first = run
        try:
            await run.start(self._spawn)
        except (OSError, SettingsError) as error:
            self._lines.append(f"cannot start opencode: {error}")
            self._note_exit(run.number, -1, NOT_STARTED)
            raise StartFailedError(NOT_STARTED) from error
        finally:
            if is_alone:
                self._first = None
        self._runs.add(run)
        return run

    def _find_binary(self) -> Path:
        # Looked for each time: it may have been replaced by another version.
        return find_binary(self._settings.binary, search_path=self._inherited.get("PATH"))

    async def _spawn(self) -> BootProcess:
        return await BootProcess.spawn(
            self._find_binary(),
            settings=self._settings,
            files=self._files,
            session=self._session,
            relay=self._relay(),
            inherited=self._inherited,
            confining=self._confining,
            keep_line=self._lines.append,
        )

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is to become ready any more."""
        return self._is_stopping

    def awaited_processes(self) -> Collection[int]:
        """Return the processes whose exit status is awaited here."""
        return list(itertools.chain(*self._processes.values()))

    def note_processes(self, number: int, pids: tuple[int, ...]) -> None:
        """A boot has these processes; its own is first."""
        if self._first is not None and self._first.number == number:
            self.boot = number
        super().note_processes(number, pids)

    def note_over(self, run: BootRun) -> None:
        """A boot's process has exited, or is about to be ended."""
        if run is self._first or run.boot is self._current:
            self._set_state("backing_off" if run.has_exited else "stopping")
        if run is self._spare:
            self._spare = None
        self._lose(run.boot, run.loss)
        self._wake.set()

    def note_end(self, boot: Boot, code: int, reason: str) -> None:
        """A boot's process, and all below it, has ended."""
        if boot is self._current:
            self._current = None
        self._runs = {run for run in self._runs if run.boot is not boot}
        self.note_processes(boot.number, ())
        self._note_exit(boot.number, code, reason)
        _log.info("child ended", boot=boot.number, code=code, reason=reason)
        self._wake.set()

    def _crashed(self, task: str, error: BaseException) -> None:
        if task.partition(":")[2].split()[0] in {"supervise", "boot", "retire"}:
            self._fail(f"supervision failed: {error}")
