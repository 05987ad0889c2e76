"""Attach mode: the sidecar and opencode as two processes that only the platform connects."""

import asyncio
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.opencode.environment import ChildFiles
from sidecar.opencode.executable import find_binary
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client, text_of
from tests.ports import free_port
from tests.raw_client import RawClient, plain
from tests.waiting import PATIENCE_SECONDS, patience, until

ADMIN_KEY = "admin-key-of-the-tests"
RELAY_TOKEN = "relay-token-of-the-tests"
PASSWORD = "password-of-the-tests"
VARIABLE = "DEPLOY_KEY"
PRINT_DIGEST = f"[[bash: printf %s ${VARIABLE} | sha256sum]]"
PRYING_AGENT = Path(__file__).parents[1] / "fakes" / "prying_agent.py"


class Pod:
    """Both containers as processes: the same files, loopback between them, nothing else in common."""

    def __init__(self, root: Path, gateway: DemoGateway) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.ports = {name: free_port() for name in ("http", "admin", "relay", "opencode")}
        self.opencode: subprocess.Popen[bytes] | None = None
        self.sidecar: subprocess.Popen[bytes] | None = None
        self.pid_file = root / "opencode.pid"
        killer = f"{sys.executable} -c \"import os,signal;os.kill(int(open('{self.pid_file}').read()),9)\""
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "HOST": "127.0.0.1",
            "PORT": str(self.ports["http"]),
            "RUNTIME_API_KEY": RUNTIME_KEY,
            "DATA_DIR": str(self.data_dir),
            "LITELLM_BASE_URL": gateway.url,
            "LITELLM_API_KEY": GATEWAY_KEY,
            "SIDECAR_ADMIN_PORT": str(self.ports["admin"]),
            "SIDECAR_ADMIN_KEY": ADMIN_KEY,
            "SIDECAR_RELAY_PORT": str(self.ports["relay"]),
            "SIDECAR_RELAY_TOKEN": RELAY_TOKEN,
            "SIDECAR_CHILD_DRAIN_SECONDS": "2",
            "SIDECAR_CHILD_HEALTH_INTERVAL_SECONDS": "1",
            "SIDECAR_CHILD_RESTART_COMMAND": killer,
            "OPENCODE_URL": f"http://127.0.0.1:{self.ports['opencode']}",
            "OPENCODE_SERVER_PASSWORD": PASSWORD,
        }

    def child_env(self) -> dict[str, str]:
        """Return what the command prints for the other container."""
        answer = subprocess.run(
            [sys.executable, "-m", "sidecar", "child-env"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("=", 1) for line in answer.stdout.splitlines())

    def start_opencode(self, **variables: str) -> None:
        """Run the other container: its own environment, what `child-env` printed, and `variables`."""
        cwd = self.data_dir / "opencode" / "cwd"
        cwd.mkdir(parents=True, exist_ok=True)
        binary = find_binary(None, search_path=os.environ["PATH"])
        self.opencode = subprocess.Popen(
            [binary, "serve", "--hostname", "127.0.0.1", "--port", str(self.ports["opencode"])],
            env={"PATH": os.environ["PATH"], **self.child_env(), **variables},
            cwd=cwd,
            stdout=(self.root / "opencode.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid_file.write_text(str(self.opencode.pid))

    def start_sidecar(self) -> None:
        """Run the sidecar's container."""
        self.sidecar = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "serve"],
            env=self.environment,
            stdout=(self.root / "sidecar.log").open("ab"),
            stderr=subprocess.STDOUT,
        )

    def kill_opencode(self) -> None:
        """End it as the kernel's memory killer would."""
        assert self.opencode is not None
        self.opencode.kill()
        self.opencode.wait()

    def close(self) -> None:
        """End both."""
        for process in (self.sidecar, self.opencode):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def admin(self) -> aiohttp.ClientSession:
        """Return a client of the admin listener."""
        url = f"http://127.0.0.1:{self.ports['admin']}"
        return aiohttp.ClientSession(url, headers={"x-api-key": ADMIN_KEY})

    async def child_state(self, http: aiohttp.ClientSession) -> dict[str, Any]:
        """Return what the sidecar says of opencode."""
        async with http.get("/admin/state") as answer:
            child: dict[str, Any] = (await answer.json())["opencode"]
            return child

    async def until_state(
        self, state: str, *, boot: int, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Ask until opencode is in that state, in that boot: two processes share no event."""
        async with asyncio.timeout(seconds), self.admin() as http:
            while True:
                try:
                    child = await self.child_state(http)
                    if (child["state"], child["boot"]) == (state, boot):
                        return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, gateway: DemoGateway) -> Iterator[Pod]:
    """A pod whose sidecar came first, which is the order of Kubernetes' native sidecars."""
    pod = Pod(tmp_path_factory.mktemp("pod"), gateway)
    pod.start_sidecar()
    pod.start_opencode()
    yield pod
    pod.close()


@pytest.fixture
async def raw(pod: Pod) -> AsyncIterator[RawClient]:
    async with http_client(f"http://127.0.0.1:{pod.ports['http']}") as http:
        yield RawClient(http)


def log_of(pod: Pod, name: str) -> list[dict[str, object]]:
    """Return the log lines of a process that are JSON."""
    text = (pod.root / f"{name}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def digest(text: str) -> str:
    """Return what `sha256sum` prints, so that a value itself is in no history."""
    return hashlib.sha256(text.encode()).hexdigest()


async def with_variable(raw: RawClient, value: str) -> str:
    """Return a session with a vault that has the variable."""
    vault_id = (await raw.call("POST", "/v1/vaults", {"display_name": "v"}))["id"]
    auth = {"type": "environment_variable", "secret_name": VARIABLE, "secret_value": value}
    await raw.call("POST", f"/v1/vaults/{vault_id}/credentials", {"auth": auth})
    return await raw.new_session(vault_ids=[vault_id])


def output_of(turn: list[dict[str, Any]]) -> str:
    """Return what the one tool call of a turn printed."""
    (result,) = plain(turn, "agent.tool_result")
    return "".join(block["text"] for block in result["content"])


async def test_a_turn_runs_through_an_opencode_of_somebody_else(pod: Pod, raw: RawClient) -> None:
    """Text, a tool in the session's directory, and no keys in its shell."""
    await pod.until_state("ready", boot=1)
    session = await raw.new_session()
    turn = await raw.turn(session, "[[bash: pwd; env]] [[then]] [[say: done]]")
    shown = output_of(turn)
    assert str(pod.data_dir / "workspaces" / session) in shown
    assert not [key for key in (RELAY_TOKEN, PASSWORD, GATEWAY_KEY) if key in shown]
    assert text_of(turn) == "done"


async def test_a_new_model_is_used_without_a_restart(
    pod: Pod, raw: RawClient, gateway: DemoGateway
) -> None:
    """The config in the shared directory is read by each new directory, as always."""
    gateway.models["attached/new"] = DemoModel(id="attached/new")
    try:
        await raw.call("GET", "/v1/models?refresh=true")
        session = await raw.new_session(model="attached/new")
        assert text_of(await raw.turn(session, "[[say: I am new]]")) == "I am new"
    finally:
        del gateway.models["attached/new"]
    await pod.until_state("ready", boot=1)


async def test_shells_have_the_variables_of_their_session(pod: Pod, raw: RawClient) -> None:
    """Each session's shell has its own value, which is in no file and not in opencode's environment."""
    assert pod.opencode is not None
    first, second = (
        await with_variable(raw, "value-of-one"),
        await with_variable(raw, "value-of-two"),
    )
    assert digest("value-of-one") in output_of(await raw.turn(first, PRINT_DIGEST))
    assert digest("value-of-two") in output_of(await raw.turn(second, PRINT_DIGEST))
    assert digest("") in output_of(await raw.turn(await raw.new_session(), PRINT_DIGEST))
    secret = b"value-of-"
    assert secret not in Path(f"/proc/{pod.opencode.pid}/environ").read_bytes()
    files = [path for path in pod.root.rglob("*") if path.is_file()]
    assert [path for path in files if secret in path.read_bytes()] == []


async def test_a_shell_cannot_ask_for_another_session(pod: Pod, raw: RawClient) -> None:
    """It reaches the socket, has the user of opencode, and is not opencode."""
    victim, attacker = await with_variable(raw, "value-of-the-victim"), await raw.new_session()
    asked = ChildFiles(pod.data_dir / "opencode").shell_socket
    directory = pod.data_dir / "workspaces" / victim
    command = shlex.join([sys.executable, str(PRYING_AGENT), str(asked), str(directory)])
    answer = output_of(await raw.turn(attacker, f"[[bash: {command}]]"))
    assert "403" in answer
    assert "value-of" not in answer
    assert [line for line in log_of(pod, "sidecar") if line["event"] == "shell environment refused"]


async def test_its_process_is_looked_at(pod: Pod) -> None:
    """State and metrics show the other container's process like one of our own."""
    assert pod.opencode is not None
    async with patience(), pod.admin() as http:
        while not (child := await pod.child_state(http))["vitals"]:
            await asyncio.sleep(0.1)
        async with http.get("/metrics") as answer:
            metrics = await answer.text()
    assert (child["pid"], child["pid_unknown_because"]) == (pod.opencode.pid, None)
    assert child["vitals"]["rss_bytes"] > 100_000_000
    assert child["vitals"]["maps"] > 100
    assert "opencode_sidecar_child_resident_memory_bytes" in metrics


async def test_custom_tools_reach_us(pod: Pod, raw: RawClient) -> None:
    """The tool server's address works from the other process."""
    tool = {
        "type": "custom",
        "name": "weather",
        "description": "Tells the weather.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    session = await raw.new_session(tools=[tool])
    async with raw.stream(session) as reader:
        await raw.send(session, '[[tool: weather {"city": "Rome"}]] [[then]] [[say: sunny]]')
        (call,) = plain(await reader.until("session.status_idle"), "agent.custom_tool_use")
        answer = {
            "type": "user.custom_tool_result",
            "custom_tool_use_id": call["id"],
            "content": [{"type": "text", "text": "sun"}],
        }
        await raw.send_events(session, answer)
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "sunny"


async def test_its_death_ends_the_turn_and_its_return_is_noticed(pod: Pod, raw: RawClient) -> None:
    """Killed in a turn: an honest error at once; started again: the session goes on, remembering. What the
    agent had left running is gone."""
    session = await raw.new_session()
    background = "setsid sleep 300 >/dev/null 2>&1 & echo pid $!"
    left = int(output_of(await raw.turn(session, f"[[bash: {background}]]")).split("pid ")[1])
    await until(lambda: psutil.Process(left).name() == "sleep")
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[slow: 300x0.1 tick]]")
        await reader.until("event_delta")
        pod.kill_opencode()
        ending = await reader.until("session.status_idle")
    assert "stopped unexpectedly" in plain(ending, "session.error")[0]["error"]["message"]
    await pod.until_state("starting", boot=1)
    await until(lambda: not psutil.pid_exists(left) or _is_zombie(left))
    pod.start_opencode()
    await pod.until_state("ready", boot=2)
    turn = await raw.turn(session, "[[say: after]]")
    assert text_of(turn) == "after"


def _is_zombie(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_a_restart_is_the_commands_business(pod: Pod, raw: RawClient) -> None:
    """`POST /admin/restart` runs the command; the platform brings opencode back; nothing else changes."""
    assert pod.opencode is not None
    session = await raw.new_session()
    await raw.turn(session, "[[say: before]]")
    async with pod.admin() as http, http.post("/admin/restart", json={"reason": "test"}) as answer:
        assert answer.status == 202
    await asyncio.to_thread(pod.opencode.wait, PATIENCE_SECONDS)
    pod.start_opencode()
    await pod.until_state("ready", boot=3)
    assert text_of(await raw.turn(session, "[[say: after]]")) == "after"


async def test_without_a_command_its_process_is_ended(pod: Pod) -> None:
    """The sidecar leaves opencode running when it stops; asked for a restart, it ends the process."""
    assert pod.sidecar is not None
    assert pod.opencode is not None
    pod.sidecar.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(pod.sidecar.wait, PATIENCE_SECONDS) == 0
    assert pod.opencode.poll() is None
    del pod.environment["SIDECAR_CHILD_RESTART_COMMAND"]
    pod.start_sidecar()
    await pod.until_state("ready", boot=1)
    async with pod.admin() as http, http.post("/admin/restart") as answer:
        assert answer.status == 202
    await asyncio.to_thread(pod.opencode.wait, PATIENCE_SECONDS)
    pod.start_opencode()
    await pod.until_state("ready", boot=2)


async def test_a_process_that_is_not_known_is_restarted_by_the_exit_code(
    pod: Pod, raw: RawClient
) -> None:
    """Without the environment of `child-env` agents work and get no variables; state and log say why. A
    restart is then the platform's: exit code 3."""
    assert pod.sidecar is not None
    assert pod.opencode is not None
    pod.kill_opencode()
    pod.start_opencode(SIDECAR_CHILD_MARKER="of-another-data-directory")
    await pod.until_state("ready", boot=3)
    session = await with_variable(raw, "value-for-nobody")
    assert digest("") in output_of(await raw.turn(session, PRINT_DIGEST))
    async with pod.admin() as http:
        child = await pod.child_state(http)
        assert child["pid"] is child["vitals"] is None
        assert "child-env" in child["pid_unknown_because"]
    (warning,) = [line for line in log_of(pod, "sidecar") if "because" in line]
    assert warning["because"] == child["pid_unknown_because"]
    async with pod.admin() as http, http.post("/admin/restart") as answer:
        assert answer.status == 202
    assert await asyncio.to_thread(pod.sidecar.wait, PATIENCE_SECONDS) == 3
    assert pod.opencode.poll() is None
    assert any(
        line["event"] == "opencode cannot be kept running" for line in log_of(pod, "sidecar")
    )


def test_child_env_is_for_attach_mode_only(pod: Pod) -> None:
    """Without OPENCODE_URL there is nothing to print; with it no key of the gateway is printed."""
    environment = {key: value for key, value in pod.environment.items() if key != "OPENCODE_URL"}
    answer = subprocess.run(
        [sys.executable, "-m", "sidecar", "child-env"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "OPENCODE_URL" in answer.stderr
    printed = pod.child_env()
    assert GATEWAY_KEY not in printed.values()
    assert RUNTIME_KEY not in printed.values()
    assert printed["OPENCODE_SERVER_PASSWORD"] == PASSWORD


@pytest.mark.parametrize("name", ["OPENCODE_SERVER_PASSWORD", "SIDECAR_RELAY_TOKEN"])
def test_half_a_configuration_does_not_start(pod: Pod, name: str) -> None:
    """Attach mode without what both containers must agree on is refused and says what is missing."""
    environment = {key: value for key, value in pod.environment.items() if key != name}
    answer = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert name in answer.stderr
