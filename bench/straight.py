"""opencode without the sidecar in between: what turns and restarts are measured against.

The same executable, environment and config file as the sidecar's child gets, except that model requests
go straight to the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.clients import TurnTimes, frames
from bench.processes import BASIC_MODEL, GATEWAY_KEY, cpu_seconds
from sidecar.aiokit import cancel_and_wait
from sidecar.config import ChildSettings
from sidecar.ids import new_id
from sidecar.naming import GATEWAY_PROVIDER, ModelRef
from sidecar.opencode.boot_process import BootProcess
from sidecar.opencode.client import ChildClient, PermissionRule
from sidecar.opencode.config_file import AGENT, ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.executable import find_binary
from sidecar.opencode.provider import ModelEntry

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.01
_TURN_SECONDS = 120.0
_LAST_LINES = 20


class StraightOpencode:
    """One `opencode serve`; `restart` replaces it."""

    agent = AGENT
    """The agent that takes the prompts."""

    def __init__(
        self, *, directory: Path, gateway_url: str, session: aiohttp.ClientSession
    ) -> None:
        self._directory = directory
        self._gateway_url = gateway_url
        self._session = session
        self._files = ChildFiles(directory / "opencode")
        self._boot: BootProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._turns: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)

    async def start(self) -> None:
        """Start and wait until it is healthy. Raises RuntimeError with its last words."""
        boot = self._boot = await self._spawn()
        deadline = time.monotonic() + _READY_SECONDS
        while await boot.version() is None:
            if boot.process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"opencode did not start: {'; '.join(self._lines)}")
            await asyncio.sleep(_POLL_SECONDS)
        events = frames(await boot.client.open_events())
        await anext(events)  # server.connected
        self._reading = asyncio.create_task(self._read(events))

    async def _spawn(self) -> BootProcess:
        await asyncio.to_thread(self._files.prepare)
        config = ConfigFile(self._files.config_file)
        await config.register({BASIC_MODEL: ModelEntry(BASIC_MODEL)})
        return await BootProcess.spawn(
            find_binary(None, search_path=None),
            settings=ChildSettings(),
            files=self._files,
            session=self._session,
            relay=RelayAccess(f"{self._gateway_url}/v1", GATEWAY_KEY),
            inherited={},
            keep_line=self._lines.append,
        )

    async def stop(self) -> None:
        """End it politely."""
        await cancel_and_wait(self._reading)
        if self._boot is not None:
            await self._boot.end(is_polite=True)
            self._boot = None

    async def restart(self) -> None:
        """Stop and start: what adding a model costs where config is read at start only."""
        await self.stop()
        await self.start()

    def cpu_seconds(self) -> float:
        """Return the processor time that opencode has used since its start."""
        assert self._boot is not None, "not started"
        return cpu_seconds(self._boot.process.pid)

    async def new_session(self, permission: Sequence[PermissionRule] = ()) -> str:
        """Create a session in a directory of its own, as the sidecar does."""
        directory = self._directory / new_id("sesn")
        await asyncio.to_thread(directory.mkdir, parents=True)
        return await self._client.create_session(directory, title="bench", permission=permission)

    async def turn(
        self, session_id: str, text: str, *, together: asyncio.Barrier | None = None
    ) -> TurnTimes:
        """Run one turn; the events are open before, as with the sidecar."""
        inbox = self._turns[session_id] = asyncio.Queue()
        if together is not None:
            await together.wait()
        began, first = time.perf_counter(), 0.0
        sending = asyncio.create_task(self._prompt(session_id, text))
        async with asyncio.timeout(_TURN_SECONDS):
            while True:
                payload = await inbox.get()
                type_, properties = payload["type"], payload["properties"]
                if not first and _is_text(type_, properties):
                    first = time.perf_counter() - began
                elif type_ == "session.error":
                    raise RuntimeError(f"the turn failed: {properties}")
                elif _is_idle(type_, properties):
                    break
        whole = time.perf_counter() - began
        await sending
        del self._turns[session_id]
        if not first:
            raise RuntimeError("the turn had no text")
        return TurnTimes(first, whole)

    async def _read(self, events: AsyncIterator[dict[str, Any]]) -> None:
        """Hand each event to its session: one subscription for all is opencode's cheapest way."""
        async for event in events:
            session_id = event["payload"].get("properties", {}).get("sessionID")
            if session_id in self._turns:
                self._turns[session_id].put_nowait(event["payload"])

    async def _prompt(self, session_id: str, text: str) -> None:
        await self._client.prompt_async(
            session_id,
            message_id=new_id("msg"),
            model=ModelRef(GATEWAY_PROVIDER, BASIC_MODEL),
            parts=[{"type": "text", "text": text}],
            agent=self.agent,
        )

    @property
    def _client(self) -> ChildClient:
        assert self._boot is not None, "not started"
        return self._boot.client


@asynccontextmanager
async def straight_opencode(
    directory: Path, gateway_url: str, *, kind: type[StraightOpencode] = StraightOpencode
) -> AsyncIterator[StraightOpencode]:
    """A started opencode of that kind."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        opencode = kind(directory=directory, gateway_url=gateway_url, session=session)
        try:
            await opencode.start()
            yield opencode
        finally:
            await opencode.stop()


def _is_text(type_: str, properties: dict[str, Any]) -> bool:
    return type_ == "message.part.delta" and properties.get("field") == "text"


def _is_idle(type_: str, properties: dict[str, Any]) -> bool:
    return type_ == "session.status" and properties["status"]["type"] == "idle"
