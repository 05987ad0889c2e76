"""A real opencode over a scripted gateway in a scratch directory: where the facts are checked."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.aiokit import TaskOwner
from sidecar.config import ChildSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.demo_gateway.server import RecordedRequest
from sidecar.ids import new_id
from sidecar.managed.child.sessions import prompt_parts
from sidecar.naming import GATEWAY_PROVIDER, ModelRef
from sidecar.opencode.child import State
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import AGENT, ConfigFile
from sidecar.opencode.environment import PLUGIN_FILE, ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.provider import ModelEntry
from sidecar.opencode.shell_environment import ShellEnvironment
from sidecar.opencode.supervisor import Supervisor
from sidecar.wire.opencode_events import ChildEvent

MODEL, LATE_MODEL = "vendor/known:1", "vendor/late"
TOKEN = "relay-token-of-the-bench"  # noqa: S105  # good for the scripted gateway only
DIRECTORY_VARIABLE = "SIDECAR_COMPAT_BENCH"
"""What the bench gives the shells of a directory: the directory."""
_READY_SECONDS = 60.0
_EVENT_SECONDS = 30.0

Permission = Sequence[Mapping[str, str]]


class FactError(Exception):
    """The fact does not hold; the message says what was seen instead."""


def expect(condition: object, seen: str) -> None:
    """Raise FactError with `seen` unless the condition holds."""
    if not condition:
        raise FactError(seen)


class Prompt:
    """One prompt and every event of its session since."""

    def __init__(self, session_id: str, directory: Path, message_id: str) -> None:
        self.session_id = session_id
        self.directory = directory
        self.message_id = message_id
        self.events: list[ChildEvent] = []
        self._changed = asyncio.Event()

    def take(self, event: ChildEvent) -> None:
        """Note an event."""
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[ChildEvent], bool], what: str) -> ChildEvent:
        """Wait for an event. Raises FactError when it does not come."""
        try:
            async with asyncio.timeout(_EVENT_SECONDS):
                while True:
                    for event in self.events:
                        if condition(event):
                            return event
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            types = ", ".join(dict.fromkeys(self.types)) or "nothing"
            raise FactError(f"no {what} within {_EVENT_SECONDS:g} s; seen: {types}") from None

    async def idle(self) -> ChildEvent:
        """Wait for the end of the turn."""
        return await self.until(is_idle, "session.status idle")

    async def first(self, type_: str) -> ChildEvent:
        """Wait for the first event of that type."""
        return await self.until(lambda event: event.type == type_, type_)

    @property
    def types(self) -> list[str]:
        """The types of all events, in order."""
        return [event.type for event in self.events]

    @property
    def text(self) -> str:
        """The streamed text."""
        deltas = (e.properties["delta"] for e in self.events if e.type == "message.part.delta")
        return "".join(deltas)


def is_idle(event: ChildEvent) -> bool:
    """Whether the event says that the turn is over."""
    return event.type == "session.status" and event.properties["status"]["type"] == "idle"


class CompatBench:
    """One boot, or after `restart` another, of the opencode under test."""

    def __init__(
        self,
        *,
        root: Path,
        files: ChildFiles,
        gateway: DemoGateway,
        config_file: ConfigFile,
        supervisor: Supervisor,
        pump: EventPump,
        settings: ChildSettings,
    ) -> None:
        self.settings = settings
        self.root = root
        self.files = files
        self.gateway = gateway
        self.config_file = config_file
        self.supervisor = supervisor
        self.pump = pump
        self._directories = 0

    @property
    def stand_ins(self) -> Path:
        """Where the programs are that stand in for a shell and ripgrep, and their logs."""
        return self.root / "stand-ins"

    @property
    def client(self) -> ChildClient:
        """The client of the running boot."""
        client = self.supervisor.client
        expect(client is not None, f"opencode is {self.supervisor.state}")
        assert client is not None
        return client

    def directory(self) -> Path:
        """Make a directory that opencode has not seen."""
        self._directories += 1
        path = self.root / "work" / f"d{self._directories}"
        path.mkdir(parents=True)
        return path

    async def models_in(self, directory: Path) -> dict[str, set[str]]:
        """Return the model ids by provider as that directory has them."""
        answer = await self.client.providers(directory)
        return {p["id"]: set(p["models"]) for p in answer["providers"]}

    async def prompt(
        self,
        text: str,
        *,
        directory: Path | None = None,
        session_id: str | None = None,
        message_id: str | None = None,
        model: str = MODEL,
        system: str | None = None,
        permission: Permission = (),
    ) -> Prompt:
        """Send a prompt to a session, made for it unless given; with a `message_id` send it again."""
        directory = directory or self.directory()
        if session_id is None:
            session_id = await self.client.create_session(
                directory, title="compat bench", permission=permission
            )
        prompt = Prompt(session_id, directory, message_id or new_id("msg"))
        boot = self.supervisor.current
        expect(boot is not None, f"opencode is {self.supervisor.state}")
        assert boot is not None
        self.pump.subscribe(boot, session_id, prompt.take)
        await self.client.prompt_async(
            session_id,
            message_id=prompt.message_id,
            model=ModelRef(GATEWAY_PROVIDER, model),
            parts=prompt_parts(prompt.message_id, [{"type": "text", "text": text}]),
            agent=AGENT,
            system=system,
        )
        return prompt

    def asked(self, session_id: str) -> list[RecordedRequest]:
        """Return the model requests that named the session in their header."""
        return [r for r in self.gateway.requests if r.headers.get("x-session-id") == session_id]

    async def restart(self) -> None:
        """Replace the process."""
        boot = self.supervisor.boot
        self.supervisor.request_restart("compat bench", force=True)
        changed = asyncio.Event()

        def on_state(_state: State, number: int) -> None:
            if number > boot:
                changed.set()

        self.supervisor.on_state_change(on_state)
        async with asyncio.timeout(_READY_SECONDS):
            await changed.wait()
        await self.supervisor.wait_ready(_READY_SECONDS)
        await self.pump.wait_connected(await self.supervisor.wait_boot(_READY_SECONDS))


@asynccontextmanager
async def open_bench(root: Path, settings: ChildSettings) -> AsyncIterator[CompatBench]:
    """Boot the opencode of the settings in `root`, with nothing of the real service touched.

    Raises ChildUnavailableError when it does not start.
    """
    root = await asyncio.to_thread(root.resolve)
    files = ChildFiles(root / "opencode")
    await asyncio.to_thread(files.prepare)
    gateway = DemoGateway(models=[DemoModel(id=name) for name in (MODEL, LATE_MODEL)])
    config_file = ConfigFile(files.config_file, plugins=(PLUGIN_FILE,))
    await config_file.register({MODEL: ModelEntry(MODEL)}, default_model=MODEL)
    tasks = TaskOwner("compat bench")
    await gateway.start()
    async with aiohttp.ClientSession() as session:
        supervisor = Supervisor(
            settings=settings,
            files=files,
            session=session,
            relay=lambda: RelayAccess(f"{gateway.url}/v1", TOKEN),
            inherited=os.environ,
            confining=await asyncio.to_thread(_put_stand_ins, root / "stand-ins"),
        )
        pump = EventPump(supervisor=supervisor)
        shells = ShellEnvironment(
            path=files.shell_socket, child_pids=lambda: supervisor.pids, variables_of=_variables_of
        )
        try:
            await shells.start()
            await supervisor.start()
            tasks.start("pump", pump.run())
            await supervisor.wait_ready(_READY_SECONDS)
            await pump.wait_connected(await supervisor.wait_boot(_READY_SECONDS))
            yield CompatBench(
                root=root,
                files=files,
                gateway=gateway,
                config_file=config_file,
                supervisor=supervisor,
                pump=pump,
                settings=settings,
            )
        finally:
            await tasks.close()
            await supervisor.stop()
            await shells.close()
            await gateway.close()


def _put_stand_ins(folder: Path) -> list[str]:
    """Put programs before the real ones that note their calls; return what has opencode find them."""
    folder.mkdir(parents=True)
    search_path = os.environ.get("PATH", os.defpath)
    for name in ("bash", "rg"):
        if real := shutil.which(name, path=search_path):
            log = shlex.quote(str(folder / f"{name}.log"))
            note = f"IFS=$(printf '\\037'); printf '%s\\n' \"$PWD$IFS$*\" >> {log}; unset IFS"
            (folder / name).write_text(f'#!/bin/sh\n{note}\nexec {shlex.quote(real)} "$@"\n')
            (folder / name).chmod(0o755)
    env = shutil.which("env", path=search_path) or "/usr/bin/env"
    return [env, f"SHELL={folder / 'bash'}", f"PATH={folder}{os.pathsep}{search_path}"]


async def _variables_of(directory: Path) -> Mapping[str, str]:
    return {DIRECTORY_VARIABLE: str(directory)}


def names_of_tools(request: RecordedRequest) -> set[str]:
    """Return the tools that a model request offers."""
    tools: list[dict[str, Any]] = request.body.get("tools") or []
    return {tool["function"]["name"] for tool in tools}
