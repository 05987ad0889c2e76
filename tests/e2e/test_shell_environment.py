"""Environment credentials and the real opencode: a session's shells have them, and no other process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from structlog.testing import capture_logs

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.opencode.environment import ChildFiles
from tests.harness import (
    GATEWAY_KEY,
    http_client,
    make_settings,
    sidecar_for,
    until_idle,
    user_message,
)
from tests.waiting import patience

NAME = "DEPLOY_KEY"
PYTHON = Path(sys.base_prefix, "bin", "python3")
PRYING_AGENT = Path(__file__).parents[1] / "fakes" / "prying_agent.py"


@dataclass
class Bench:
    """A sidecar with its child, and one agent and environment."""

    sidecar: RunningSidecar
    http: aiohttp.ClientSession
    data_dir: Path
    agent_id: str
    environment_id: str

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        """POST and return the answer."""
        async with self.http.post(path, json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def vault(self, value: str) -> tuple[str, str]:
        """Make a vault with the variable; return its id and the credential's path."""
        vault_id = (await self.post("/v1/vaults", {"display_name": "v"}))["id"]
        auth = {"type": "environment_variable", "secret_name": NAME, "secret_value": value}
        path = f"/v1/vaults/{vault_id}/credentials"
        credential = await self.post(path, {"auth": auth})
        return vault_id, f"{path}/{credential['id']}"

    async def session(self, *vault_ids: str) -> str:
        """Make a session; return its id."""
        body = {
            "agent": self.agent_id,
            "environment_id": self.environment_id,
            "vault_ids": list(vault_ids),
        }
        session_id: str = (await self.post("/v1/sessions", body))["id"]
        return session_id

    async def run(self, session_id: str, command: str) -> str:
        """Have the agent run a command; return what its tool result says."""
        path = f"/v1/sessions/{session_id}/events"
        async with self.http.get(f"{path}/stream") as stream:
            await self.post(path, {"events": [user_message(f"[[bash: {command}]]")]})
            events = await until_idle(stream)
        (result,) = [event for event in events if event["type"] == "agent.tool_result"]
        return "".join(block["text"] for block in result["content"])


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One sidecar for all tests of this file."""
    data_dir = tmp_path_factory.mktemp("data")
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    async with (
        sidecar_for(make_settings(data_dir, gateway.url)) as sidecar,
        http_client(sidecar.url) as http,
    ):
        async with http.get("/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        bench = Bench(sidecar, http, data_dir, "", "")
        tools = [{"type": "agent_toolset_20260401"}]
        agent = {"name": "a", "model": model, "tools": tools}
        bench.agent_id = (await bench.post("/v1/agents", agent))["id"]
        bench.environment_id = (await bench.post("/v1/environments", {"name": "e"}))["id"]
        yield bench
    await gateway.close()


async def test_each_session_has_its_own_variables(bench: Bench) -> None:
    """Two sessions with different vaults see their own value; one without a vault sees none."""
    (first, _), (second, _) = await bench.vault("value-one"), await bench.vault("value-two")
    with_first, with_second = await bench.session(first), await bench.session(second)
    with_both, without = await bench.session(second, first), await bench.session()
    command = f"printenv {NAME} || echo none"
    assert (await bench.run(with_first, command)).strip() == "value-one"
    assert (await bench.run(with_second, command)).strip() == "value-two"
    assert (await bench.run(with_both, command)).strip() == "value-two"
    assert (await bench.run(without, command)).strip() == "none"
    assert (await bench.run(with_first, command)).strip() == "value-one"


async def test_a_used_secret_leaves_no_trace(bench: Bench) -> None:
    """A value that the agent used but did not print is in no file, no log and no environment of the child."""
    secret = "a-value-that-nobody-prints"
    vault_id, _ = await bench.vault(secret)
    session_id = await bench.session(vault_id)
    with capture_logs() as logs:
        output = await bench.run(session_id, f'printf %s "${NAME}" | sha256sum')
    assert hashlib.sha256(secret.encode()).hexdigest() in output
    assert secret not in json.dumps(logs, default=str)
    holders = [
        path
        for path in bench.data_dir.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert holders == []
    child = psutil.Process(bench.sidecar.supervisor.pid)
    assert secret not in str(child.environ())
    assert secret not in str(child.cmdline())


async def test_a_shell_cannot_ask_for_another_session(bench: Bench) -> None:
    """The socket answers opencode itself only: a command of an agent is refused, for any session."""
    vault_id, _ = await bench.vault("value-of-the-victim")
    victim, attacker = await bench.session(vault_id), await bench.session()
    victim_dir = bench.data_dir.resolve() / "workspaces" / victim
    asked = ChildFiles(bench.data_dir / "opencode").shell_socket
    (bench.data_dir / "workspaces" / attacker).mkdir(exist_ok=True)
    shutil.copy(PRYING_AGENT, bench.data_dir / "workspaces" / attacker / "agent.py")
    with capture_logs() as logs:
        answer = await bench.run(
            attacker, shlex.join([str(PYTHON), "agent.py", str(asked), str(victim_dir)])
        )
    assert "403" in answer
    assert "value-of-the-victim" not in answer
    assert [log for log in logs if log["event"] == "shell environment refused"]


async def test_the_keys_of_the_child_are_not_in_its_shells(bench: Bench) -> None:
    """A printed environment shows nothing of opencode's: no password, no token, no directory."""
    output = await bench.run(await bench.session(), "env")
    seen = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    assert seen["PATH"]
    own = ("OPENCODE_SERVER_PASSWORD", "SIDECAR_RELAY_TOKEN", "OPENCODE_CONFIG", "XDG_DATA_HOME")
    assert not seen.keys() & set(own)


async def test_a_change_counts_for_the_next_command(bench: Bench) -> None:
    """A rotated value is there at once, and a deleted vault takes its values along."""
    vault_id, credential = await bench.vault("old")
    session_id = await bench.session(vault_id)
    command = f"printenv {NAME} || echo none"
    assert (await bench.run(session_id, command)).strip() == "old"
    auth = {"type": "environment_variable", "secret_value": "new"}
    await bench.post(credential, {"auth": auth})
    assert (await bench.run(session_id, command)).strip() == "new"
    async with bench.http.delete(f"/v1/vaults/{vault_id}") as response:
        assert response.status == 200
    assert (await bench.run(session_id, command)).strip() == "none"


async def test_unknown_vaults_are_refused(bench: Bench) -> None:
    """A session cannot be created with a vault that does not exist or is archived."""
    vault_id, _ = await bench.vault("x")
    await bench.post(f"/v1/vaults/{vault_id}/archive", {})
    for bad in (vault_id, "vlt_00000000000000000000000000"):
        body = {
            "agent": bench.agent_id,
            "environment_id": bench.environment_id,
            "vault_ids": [bad],
        }
        async with bench.http.post("/v1/sessions", json=body) as response:
            assert response.status == 400
            assert bad in (await response.json())["error"]["message"]


async def test_a_restarted_child_is_served_too(bench: Bench) -> None:
    """After a restart the new process is the one that is answered."""
    vault_id, _ = await bench.vault("still-here")
    session_id = await bench.session(vault_id)
    supervisor = bench.sidecar.supervisor
    before, is_back = supervisor.boot, asyncio.Event()

    def on_state(state: str, boot: int) -> None:
        if state == "ready" and boot > before:
            is_back.set()

    supervisor.on_state_change(on_state)
    supervisor.request_restart("test", force=True)
    async with patience():
        await is_back.wait()
    assert (await bench.run(session_id, f"printenv {NAME}")).strip() == "still-here"


async def test_the_plugin_costs_no_installation(bench: Bench) -> None:
    """Loading our plug-in makes opencode install nothing: its own directories hold no package."""
    files = ChildFiles(bench.data_dir / "opencode")
    installed = [
        path for kind in ("config", "cache") for path in files.xdg(kind).rglob("node_modules/*")
    ]
    assert installed == []
