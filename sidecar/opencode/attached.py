"""An opencode that somebody else starts, in another container of the pod (attach mode).

    stopped -> starting -> ready <-> degraded -> draining -> stopping -> stopped
                  ^          |          |
                  +----------+----------+--> backing_off -> starting;  failed when we cannot go on

The same interface as `Supervisor`, without a process of our own: it is gone when its address refuses
connections, and a new one is another boot. It must be used by this sidecar alone: whatever it still does
when we meet it is aborted, because the turns that it belongs to were settled long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Callable

import aiohttp
import structlog

from sidecar.aiokit import TaskOwner
from sidecar.config import ChildSettings
from sidecar.errors import ChildError
from sidecar.opencode.child import Child
from sidecar.opencode.client import ChildClient

_READY_POLL_SECONDS = 0.25
_WATCH_SECONDS = 2.0
"""Pause between health checks; loopback or a pod's network, so they cost nothing."""
_CHECK_TIMEOUT_SECONDS = 5.0
_DISPOSE_TIMEOUT_SECONDS = 5.0
_RESTART_TIMEOUT_SECONDS = 60.0
_GONE_TIMEOUT_SECONDS = 15.0
"""How long after a restart command the old process may still answer."""
_OUTPUT_EXCERPT = 500

_EXITED = "exited"
_SILENT = "no answer to health checks"
_STOPPED = "stopped"

_log = structlog.get_logger(__name__)


class AttachedChild(Child):
    """Watches the opencode at `settings.url`. `start` once, `stop` once."""

    def __init__(
        self,
        *,
        settings: ChildSettings,
        session: aiohttp.ClientSession,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        assert settings.url is not None
        assert settings.password is not None
        self._settings = settings
        self._url = settings.url
        self._password = settings.password.get_secret_value()
        self._session = session
        self._is_busy = is_busy
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
            client = await self._found()
            if client is None:
                return
            reason = await self._attend(client)
            if reason in {_EXITED, _STOPPED}:
                self._set_state("stopping" if self._is_stopping else "backing_off")
            else:
                self._set_state("stopping")
            if reason != _EXITED:
                await _dispose(client)
            self._client = None
            self._note_exit(0, reason)
            _log.info("attached child lost", boot=self.boot, reason=reason)
            if self._is_stopping:
                return
            if reason != _EXITED and not await self._is_restarted(client, reason):
                return

    async def _found(self) -> ChildClient | None:
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
                self.version = await client.health(timeout_seconds=self._check_timeout_seconds)
            except ChildError as error:
                if error.upstream_status in {401, 403}:
                    self._fail(f"{self._url} refuses OPENCODE_SERVER_PASSWORD")
                    return None
                if time.monotonic() > warn_at:
                    _log.warning("opencode is not there yet", url=self._url, error=error.message)
                    warn_at = time.monotonic() + self._settings.start_timeout_seconds
            else:
                await _dispose(client)
                self.boot += 1
                self._client = client
                self._restart_reason, self._restart_forced = None, False
                self._set_state("ready")
                _log.info("attached to child", boot=self.boot, version=self.version, url=self._url)
                return client
            await self._pause(_READY_POLL_SECONDS)
        return None

    async def _attend(self, client: ChildClient) -> str:
        """Stay until this boot is over or has to end; return why."""
        unhealthy_since: float | None = None
        while True:
            if self._is_stopping:
                return _STOPPED
            if self._restart_reason and (self._restart_forced or not self._is_busy()):
                return self._restart_reason
            try:
                await client.health(timeout_seconds=self._check_timeout_seconds)
            except ChildError as error:
                if _is_refused(error):
                    return _EXITED
                unhealthy_since = unhealthy_since or time.monotonic()
                self._note_health(False)
                if time.monotonic() - unhealthy_since > self._settings.health_timeout_seconds:
                    return _SILENT
            else:
                unhealthy_since = None
                self._note_health(True)
            await self._pause(_WATCH_SECONDS)

    async def _is_restarted(self, client: ChildClient, reason: str) -> bool:
        """Have the platform restart it; False when nobody can, and then the state is `failed`."""
        command = self._settings.restart_command
        if command is None:
            self._fail(
                f"opencode must be restarted ({reason}), and that is the platform's business"
            )
            return False
        problem = await _run_command(command)
        if problem is not None:
            self._fail(f"opencode must be restarted ({reason}), but the command failed: {problem}")
            return False
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
    """Whether nobody listens at the address, as opposed to somebody who is slow."""
    return isinstance(error.__cause__, aiohttp.ClientConnectorError)


async def _dispose(client: ChildClient) -> None:
    """Abort what it works on; partial text is saved and tools are killed."""
    with contextlib.suppress(ChildError):
        await client.global_dispose(timeout_seconds=_DISPOSE_TIMEOUT_SECONDS)


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
