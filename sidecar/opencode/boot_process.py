"""The process of a boot that we start: its start, the client that talks to it, its end. Mechanism only."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import aiohttp

from sidecar.config import ChildSettings
from sidecar.errors import ChildError
from sidecar.opencode import child_log
from sidecar.opencode.client import ChildClient
from sidecar.opencode.environment import ChildFiles, RelayAccess, build_environment
from sidecar.processes import orphans
from sidecar.processes.process import ChildProcess

HEALTH_POLL_TIMEOUT_SECONDS = 2.0
_DISPOSE_TIMEOUT_SECONDS = 5.0
_TERM_GRACE_SECONDS = 3.0


class BootProcess:
    """A spawned opencode. Create with `spawn`."""

    def __init__(self, *, process: ChildProcess, client: ChildClient, port: int) -> None:
        self.process = process
        self.client = client
        self.port = port

    @classmethod
    async def spawn(
        cls,
        binary: Path,
        *,
        settings: ChildSettings,
        files: ChildFiles,
        session: aiohttp.ClientSession,
        relay: RelayAccess,
        inherited: Mapping[str, str],
        confining: Sequence[str] = (),
        keep_line: Callable[[str], None],
    ) -> BootProcess:
        """Start opencode on its port with a password of its own. Raises OSError.

        `confining` goes before its command line (`confinement`).
        """
        password, port = secrets.token_urlsafe(24), settings.port or _free_port()
        process = await ChildProcess.spawn(
            [
                *confining,
                *(str(binary), "serve", "--hostname", "127.0.0.1", "--port", str(port)),
                *("--print-logs", "--log-level", settings.log_level),
            ],
            env=build_environment(files, inherited=inherited, password=password, relay=relay),
            cwd=files.cwd,
            on_line=child_log.relogger(secrets=(password, relay.token), keep=keep_line),
        )
        client = ChildClient(
            base_url=f"http://127.0.0.1:{port}",
            password=password,
            session=session,
            request_timeout_seconds=settings.request_timeout_seconds,
        )
        return cls(process=process, client=client, port=port)

    @property
    def has_exited(self) -> bool:
        """Whether it, and all below it, is gone."""
        return self.process.returncode is not None

    async def version(self) -> str | None:
        """Return the child's version if it answers, else None."""
        try:
            return await self.client.health(timeout_seconds=HEALTH_POLL_TIMEOUT_SECONDS)
        except ChildError:
            return None

    async def end(self, *, is_polite: bool) -> int:
        """End the process if it still runs; return its exit status.

        Politely: dispose (saves partial text, kills tools), SIGTERM, and only then SIGKILL.
        """
        if not self.has_exited and is_polite:
            with contextlib.suppress(ChildError):
                await self.client.global_dispose(timeout_seconds=_DISPOSE_TIMEOUT_SECONDS)
            self.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), _TERM_GRACE_SECONDS)
        self.process.kill()
        return await self.process.wait()


async def sweep(marker: str, variable: str = orphans.MARKER_VARIABLE) -> int:
    """Kill and reap everything that carries the marker, without blocking the loop; return how many."""
    return await asyncio.to_thread(orphans.sweep, marker, variable)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
