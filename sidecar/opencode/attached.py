"""An opencode that the platform starts, in another container of the pod (attach mode).

    stopped -> starting -> ready <-> degraded -> draining -> stopping -> stopped
                  ^          |          |
                  +----------+----------+--> backing_off -> starting;  failed when we cannot go on

The same interface as `Supervisor`, without a process of our own: it is gone when its process is or, where
the kernel does not show us that (`attached_process`), when its address refuses connections; a new one is
another boot. It must be used by this sidecar alone: whatever it still does when we meet it is aborted,
because the turns that it belongs to were settled long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time

import aiohttp
import structlog

from sidecar.aiokit import TaskOwner
from sidecar.config import ChildSettings
from sidecar.errors import ChildError
from sidecar.opencode.attached_process import AttachedProcess
from sidecar.opencode.boot import Boot, Loss
from sidecar.opencode.boot_process import sweep
from sidecar.opencode.child import Child, IsBusy, never_busy
from sidecar.opencode.client import ChildClient
from sidecar.opencode.health import read_process_stats
from sidecar.opencode.pulse import UNRESPONSIVE, Pulse
from sidecar.processes import orphans

_READY_POLL_SECONDS = 0.25
_WATCH_SECONDS = 2.0
"""Pause between health checks; loopback or a pod's network, so they cost nothing."""
_CHECK_TIMEOUT_SECONDS = 5.0
_DISPOSE_TIMEOUT_SECONDS = 5.0
_RESTART_TIMEOUT_SECONDS = 60.0
_GONE_TIMEOUT_SECONDS = 15.0
"""How long after a restart command the old process may still answer."""
_OUTPUT_EXCERPT = 500

_NOT_CONFINED = (
    "opencode was not seen to be started with what `opencode-sidecar child-env` prints as "
    "SIDECAR_CONFINED_BY before its command line, in a process namespace that both containers share"
)
_EXITED = "exited"
_STOPPED = "stopped"

_log = structlog.get_logger(__name__)


class AttachedChild(Child):
    """Watches the opencode at `settings.url`. `start` once, `stop` once."""

    def __init__(
        self,
        *,
        settings: ChildSettings,
        session: aiohttp.ClientSession,
        marker: str,
        is_busy: IsBusy = never_busy,
        must_be_confined: bool = False,
    ) -> None:
        super().__init__(settings, is_busy=is_busy)
        assert settings.url is not None
        assert settings.password is not None
        self._marker = marker
        self._must_be_confined = must_be_confined
        self._process: AttachedProcess | None = None
        self._url = settings.url
        self._password = settings.password.get_secret_value()
        self._session = session
        self._check_timeout_seconds = min(_CHECK_TIMEOUT_SECONDS, settings.health_timeout_seconds)
        self._tasks = TaskOwner("attached child", on_crash=self._crashed)
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for it and return at once."""
        if self._main is None:
            self._main = self._tasks.start("attend", self._run())

    async def stop(self) -> None:
        """Let go of it: its turns are aborted and saved, the process stays."""
        self._is_stopping = True
        self._wake.set()
        self._settled.set()
        if self._main is not None:
            await asyncio.gather(self._main, return_exceptions=True)
        await self._tasks.close()
        if not self.failed.is_set():
            self._set_state("stopped")

    def suspect(self) -> None:
        """The event stream broke: look at once whether the process is still there."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._set_state("starting")
            boot = await self._found()
            if boot is None:
                return
            try:
                reason = await self._attend(boot)
                if not await self._goes_on(boot, reason):
                    return
            finally:
                self._forget_process()

    async def _goes_on(self, boot: Boot, reason: str) -> bool:
        """Clear away after a boot; return whether there is to be another one."""
        client = boot.client
        if reason in {_EXITED, _STOPPED}:
            self._set_state("stopping" if self._is_stopping else "backing_off")
        else:
            self._set_state("stopping")
        loss: Loss = "unresponsive" if reason in UNRESPONSIVE else "ended"
        self._lose(boot, "exited" if reason == _EXITED else loss)
        if reason != _EXITED:
            await _dispose(client)
        self._current = None
        self.note_processes(boot.number, ())
        self.pid_unknown_because = ""
        self._note_exit(boot.number, 0, reason)
        killed = await self._sweep()
        _log.info("attached child lost", boot=boot.number, reason=reason, swept=killed)
        if self._is_stopping:
            return False
        return reason == _EXITED or await self._is_restarted(client, reason)

    async def _sweep(self) -> int:
        """Kill the shells of earlier turns; return how many."""
        return await sweep(self._marker, orphans.SHELL_MARKER_VARIABLE)

    async def _found(self) -> Boot | None:
        """Wait until it answers, for as long as that takes; None when we stop or cannot talk to it."""
        client = ChildClient(
            base_url=self._url,
            password=self._password,
            session=self._session,
            request_timeout_seconds=self._settings.request_timeout_seconds,
        )
        warn_at = time.monotonic() + self._settings.start_timeout_seconds
        while not self._is_stopping:
            try:
                version = await client.health(timeout_seconds=self._check_timeout_seconds)
                self.note_version(version)
            except ChildError as error:
                if error.upstream_status in {401, 403}:
                    self._fail(f"{self._url} refuses OPENCODE_SERVER_PASSWORD")
                    return None
                if time.monotonic() > warn_at:
                    _log.warning("opencode is not there yet", url=self._url, error=error.message)
                    warn_at = time.monotonic() + self._settings.start_timeout_seconds
            else:
                await _dispose(client)
                if killed := await self._sweep():
                    _log.warning("leftover processes of an earlier run killed", count=killed)
                boot = Boot(self.boot + 1, client)
                await self._know_process(boot)
                is_confined = self._process is not None and self._process.is_confined
                if not is_confined and self._must_be_confined:
                    self._forget_process()
                    self._fail(f"SIDECAR_CONFINEMENT=required: {_NOT_CONFINED}")
                    return None
                if self._process is not None and not is_confined:
                    _log.warning("agents are not confined", reason=_NOT_CONFINED)
                if self._is_stopping:
                    self._forget_process()
                    return None
                self._become_current(boot)
                _log.info(
                    "attached to child",
                    boot=boot.number,
                    version=self.version,
                    url=self._url,
                    pid=boot.pid,
                )
                return boot
            await self._pause(_READY_POLL_SECONDS)
        return None

    async def _know_process(self, boot: Boot) -> None:
        """Learn whose the address is, or why that cannot be known."""
        try:
            self._process = await AttachedProcess.find(self._url, marker=self._marker)
        except ChildError as error:
            if error.message != self.pid_unknown_because:
                _log.warning(
                    "opencode's process is not known: no variables of vaults in its shells, no "
                    "memory limit, no sweeping of what outlives it",
                    because=error.message,
                )
            self.pid_unknown_because = error.message
            return
        boot.pid, self.pid_unknown_because = self._process.pid, ""
        self._process.on_end(self._wake.set)
        self.note_processes(boot.number, (boot.pid,))

    def _forget_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    async def _attend(self, boot: Boot) -> str:
        """Stay until this boot is over or has to end; return why."""
        pulse = Pulse(
            pid=lambda: boot.pid,
            signs=lambda: self.signs_of_life(boot),
            silence_seconds=self._settings.health_timeout_seconds,
            limit_seconds=max(
                self._settings.health_timeout_seconds, self._settings.busy_limit_seconds
            ),
        )
        await pulse.begin()
        missed_at: float | None = None
        look_at = time.monotonic() + self._settings.health_interval_seconds
        while True:
            if self._process is not None and self._process.is_gone:
                return _EXITED
            if self._is_stopping:
                return _STOPPED
            if await self._is_restart_due():
                return self._restart.reason or ""
            asked = time.monotonic()
            try:
                await boot.client.health(timeout_seconds=self._check_timeout_seconds)
            except ChildError as error:
                if _is_refused(error):
                    return _EXITED
                self.note_health(boot, False)
                reason = await pulse.missed(
                    planned_seconds=self._check_timeout_seconds + _WATCH_SECONDS,
                    took_seconds=time.monotonic() - (missed_at or asked),
                )
                if reason is not None:
                    return reason
                missed_at = time.monotonic()
            else:
                missed_at = None
                pulse.answered()
                self.note_health(boot, True)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + self._settings.health_interval_seconds
                await self._look_at_process(boot)
            await self._pause(_WATCH_SECONDS)

    async def _look_at_process(self, boot: Boot) -> None:
        if self._process is None:
            # A machine that was too busy to answer may be less so now.
            await self._know_process(boot)
        if boot.pid is None:
            return
        process_stats = await asyncio.to_thread(read_process_stats, boot.pid)
        if process_stats is not None:
            self.note_process_stats(boot, process_stats)

    async def _is_restarted(self, client: ChildClient, reason: str) -> bool:
        """Have the platform restart it; False when it cannot, and then the state is `failed`.

        Where its process is known, ending that is enough: an exit of ours would restart our container only.
        """
        command, problem = self._settings.restart_command, None
        if command is not None:
            problem = await _run_command(command)
            problem = problem and f"the command failed: {problem}"
        elif self._process is not None:
            problem = await _end(self._process)
        else:
            problem = "that is the platform's business"
        if problem is not None:
            self._fail(f"opencode must be restarted ({reason}), but {problem}")
            return False
        if self._process is not None:
            await self._process.wait(_GONE_TIMEOUT_SECONDS)
            return not self._is_stopping
        deadline = time.monotonic() + _GONE_TIMEOUT_SECONDS
        while not self._is_stopping and time.monotonic() < deadline:
            try:
                await client.health(timeout_seconds=self._check_timeout_seconds)
            except ChildError:
                break
            await self._pause(_READY_POLL_SECONDS)
        return not self._is_stopping

    def _crashed(self, task: str, error: BaseException) -> None:
        self._fail(f"{task} failed: {error}")


def _is_refused(error: ChildError) -> bool:
    """Whether nothing listens at the address, as opposed to a process that is slow."""
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)


async def _dispose(client: ChildClient) -> None:
    """Abort what it works on; partial text is saved and tools are killed."""
    with contextlib.suppress(ChildError):
        await client.global_dispose(timeout_seconds=_DISPOSE_TIMEOUT_SECONDS)


async def _end(process: AttachedProcess) -> str | None:
    """End it; return what went wrong, None when nothing did."""
    try:
        await process.end()
    except ChildError as error:
        return error.message
    return None


async def _run_command(command: str) -> str | None:
    """Run it without a shell; return what went wrong, None when nothing did."""
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except (OSError, ValueError) as error:
        return str(error)
    try:
        async with asyncio.timeout(_RESTART_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"not finished within {_RESTART_TIMEOUT_SECONDS:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    return f"status {process.returncode}: {output.decode('utf-8', 'replace')[-_OUTPUT_EXCERPT:]}"
