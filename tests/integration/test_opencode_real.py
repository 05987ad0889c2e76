"""The real opencode under our supervision, with the demo gateway behind it."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from sidecar.aiokit import TaskOwner
from sidecar.config import ChildSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.naming import ModelRef
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import AGENT, ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.executable import find_binary
from sidecar.opencode.instances import Instances
from sidecar.opencode.provider import ModelEntry
from sidecar.opencode.supervisor import Supervisor
from sidecar.wire.opencode_events import ChildEvent
from tests.recordings.mcp_server import McpServer
from tests.waiting import PATIENCE_SECONDS, patience, until

CHAT, MESSAGES, LATE = "openai/chat:1", "claude-x", "late/model"
MODELS = {CHAT: ModelEntry(CHAT), MESSAGES: ModelEntry(MESSAGES, wire="messages")}


class Turn:
    """One prompt: its events, its text, and its end."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.message_id = f"msg_{uuid.uuid4().hex}"
        self.events: list[ChildEvent] = []
        self.ended = asyncio.Event()

    def take(self, event: ChildEvent) -> None:
        """Note an event."""
        self.events.append(event)
        if event.type == "session.idle" and event.session_id == self.session_id:
            self.ended.set()

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(e.properties["delta"] for e in self.events if e.type == "message.part.delta")

    @property
    def errors(self) -> list[Any]:
        """All errors so far."""
        return [e.properties["error"] for e in self.events if e.type == "session.error"]


class World:
    """All of `sidecar.opencode` put together over the real binary."""

    def __init__(self, root: Path, session: aiohttp.ClientSession) -> None:
        self.root = root.resolve()
        self.gateway = DemoGateway(models=[DemoModel(id=i) for i in (CHAT, MESSAGES, LATE)])
        self.files = ChildFiles(self.root / "opencode")
        self.config_file = ConfigFile(self.files.config_file)
        settings = ChildSettings()
        self.supervisor = Supervisor(
            settings=settings,
            files=self.files,
            session=session,
            relay=lambda: RelayAccess(f"{self.gateway.url}/v1", "relay-token"),
            inherited={**os.environ, "LITELLM_API_KEY": "sk-gateway-secret"},
        )
        self.instances = Instances(
            config_file=self.config_file,
            boot_provider=lambda: self.supervisor.wait_boot(PATIENCE_SECONDS),
            settings=settings,
            on_broken_config=self.supervisor.report_broken_config,
        )
        self.supervisor.on_lost(lambda boot, _loss: self.instances.forget(boot))
        self.pump = EventPump(supervisor=self.supervisor)
        self.tasks = TaskOwner("test")

    async def start(self) -> None:
        """Bring it up."""
        await self.gateway.start()
        self.files.root.mkdir(parents=True)
        await self.config_file.register(MODELS)
        await self.supervisor.start()
        self.tasks.start("pump", self.pump.run())
        await self.supervisor.wait_ready(PATIENCE_SECONDS)

    async def close(self) -> None:
        """Take it down."""
        await self.tasks.close()
        await self.supervisor.stop()
        await self.gateway.close()

    def directory(self) -> Path:
        """Make a directory."""
        path = self.root / "work" / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    async def prompt(
        self, client: ChildClient, session_id: str, text: str, model: str = CHAT
    ) -> Turn:
        """Send a prompt; do not wait."""
        turn = Turn(session_id)
        boot = await self.supervisor.wait_boot(PATIENCE_SECONDS)
        await self.pump.wait_connected(boot)
        self.pump.subscribe(boot, session_id, turn.take)
        await client.prompt_async(
            session_id,
            message_id=turn.message_id,
            model=ModelRef("litellm", model),
            agent=AGENT,
            system="Be recorded.",
            parts=[{"type": "text", "text": text}],
        )
        return turn

    async def run(self, directory: Path, text: str, model: str = CHAT, **use: Any) -> Turn:
        """Run a whole turn in a new session."""
        async with self.instances.use(directory, model, **use) as boot, patience():
            session_id = await boot.client.create_session(directory, title="t")
            turn = await self.prompt(boot.client, session_id, text, model)
            await turn.ended.wait()
        return turn


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One running child for the tests of this module; those that harm it leave it running again."""
    async with aiohttp.ClientSession() as session:
        made = World(tmp_path_factory.mktemp("real"), session)
        await made.start()
        yield made
        await made.close()


def test_the_pinned_binary_is_there() -> None:
    """The tests run the opencode that `make setup` installs; without it they fail, never skip."""
    assert find_binary(None, search_path=None).stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("model", "path", "header"),
    [(CHAT, "/v1/chat/completions", "authorization"), (MESSAGES, "/v1/messages", "x-api-key")],
)
async def test_each_model_speaks_its_wire(world: World, model: str, path: str, header: str) -> None:
    """One provider entry serves both wires; the id arrives whole, with the relay's token, and there is one
    model call per turn: no titles."""
    world.gateway.requests.clear()
    turn = await world.run(world.directory(), "[[say: hello]]", model)
    assert (turn.text, turn.errors) == ("hello", [])
    (request,) = world.gateway.requests
    assert (request.path, request.body["model"]) == (path, model)
    assert request.headers[header].removeprefix("Bearer ") == "relay-token"
    assert request.headers["x-session-id"] == turn.session_id
    assert request.body["max_tokens"] == 8192
    assert "Be recorded." in json.dumps(request.body)


async def test_names_with_references_are_only_names(world: World) -> None:
    """A model named like a file reference neither reads the file nor poisons the directory."""
    name = "x {file:/nonexistent} {env:SIDECAR_RELAY_TOKEN}"
    await world.config_file.register(MODELS | {LATE: ModelEntry(LATE, display_name=name)})
    directory = world.directory()
    async with world.instances.use(directory, LATE) as used:
        client = used.client
        answer = await client.providers(directory)
    (provider,) = answer["providers"]
    assert provider["models"][LATE]["name"] == name


async def test_mcp_servers_are_back_after_a_reload(world: World) -> None:
    """The hook adds a remote MCP server with its headers after each load; its tools work, slow ones too."""
    server, directory = McpServer(), world.directory()
    await server.start()

    async def add(client: ChildClient) -> None:
        config = {"type": "remote", "url": server.url, "headers": {"x-key": "k"}, "oauth": False}
        statuses = await client.add_mcp(directory, "tools", config)
        assert statuses["tools"]["status"] == "connected"

    for _ in range(2):
        turn = await world.run(
            directory,
            '[[tool: tools_slow {"seconds": 1, "text": "42"}]] [[then]] [[say: fine]]',
            on_loaded=add,
        )
        tools = [
            e.properties["part"]
            for e in turn.events
            if e.type == "message.part.updated" and e.properties["part"]["type"] == "tool"
        ]
        assert (tools[-1]["tool"], tools[-1]["state"]["output"]) == ("tools_slow", "42")
        assert await world.instances.unload(directory)
    assert {headers["x-key"] for _, headers in server.requests} == {"k"}
    assert [method for method, _ in server.requests].count("initialize") == 2
    await server.close()


async def test_errors_are_mapped(world: World) -> None:
    """The child's refusals carry its status, and a child that is not there is unavailable."""
    client = await world.supervisor.wait_ready(PATIENCE_SECONDS)
    with pytest.raises(ChildError) as caught:
        await client.messages("ses_missing")
    assert caught.value.upstream_status == 404
    async with aiohttp.ClientSession() as session:
        nobody = ChildClient(
            base_url="http://127.0.0.1:1", password="x", session=session, request_timeout_seconds=1
        )
        with pytest.raises(ChildUnavailableError):
            await nobody.messages("ses_missing")


async def test_poisoned_directory_is_healed_by_a_restart(world: World) -> None:
    """A directory loaded from a broken file answers 400 until the child is replaced; that happens by
    itself."""
    directory, boot = world.directory(), world.supervisor.boot
    good = world.files.config_file.read_bytes()
    world.files.config_file.write_bytes(b"{ broken")
    with pytest.raises(ChildUnavailableError):
        async with world.instances.use(directory, CHAT):
            pass
    world.files.config_file.write_bytes(good)
    await until(lambda: world.supervisor.boot == boot + 1)
    turn = await world.run(directory, "[[say: healed]]")
    assert turn.text == "healed"


async def test_stop_leaves_no_process(tmp_path: Path) -> None:
    """Stopping with a tool at work ends the child and the tool, and the cut turn is saved as aborted."""
    async with aiohttp.ClientSession() as session:
        world = World(tmp_path, session)
        await world.start()
        directory = world.directory()
        async with world.instances.use(directory, CHAT) as used:
            client = used.client
            session_id = await client.create_session(directory, title="t")
            turn = await world.prompt(client, session_id, "[[bash: echo $$ > pid; sleep 600]]")
            await until(
                lambda: bool((directory / "pid").exists() and (directory / "pid").read_text())
            )
            child = world.supervisor.pid
            await world.supervisor.stop()
        await world.close()
    assert child is not None
    assert not psutil.pid_exists(child)
    assert not psutil.pid_exists(int((directory / "pid").read_text()))
    assert turn.errors[0]["name"] == "MessageAbortedError"
