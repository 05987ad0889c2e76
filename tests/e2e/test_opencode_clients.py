"""opencode's own clients through the sidecar: its SDK, `run --attach`, and its terminal interface."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from sidecar.opencode.executable import find_binary
from tests import node_program
from tests.harness import RUNTIME_KEY, http_client
from tests.terminal import Terminal
from tests.waiting import until

PROGRAM = Path(__file__).parent / "opencode_sdk"
STEPS = 8
OPENCODE = find_binary(None, search_path=None)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the client is started with: a home of its own, and the key where it looks for the password."""
    return {"HOME": str(tmp_path), "OPENCODE_SERVER_PASSWORD": RUNTIME_KEY}


@pytest.fixture
async def terminal(sidecar: RunningSidecar, environment: dict[str, str]) -> AsyncIterator[Terminal]:
    """The terminal interface, attached."""
    command = [str(OPENCODE), "attach", sidecar.url]
    async with Terminal.running(command, environment, columns=150, rows=44) as running:
        await running.until("Ask anything")
        yield running


@pytest.mark.parametrize("version", ["pinned", "newest"])
async def test_the_sdk_of_opencode(sidecar: RunningSidecar, version: str) -> None:
    """Models, sessions, prompts, events, files, abort, permissions, errors; in the version that matches and a
    newer one."""
    folder = await asyncio.to_thread(node_program.install, PROGRAM)
    package = f"opencode-sdk-{version}"
    text = await node_program.run(folder / "native.mjs", sidecar.url, RUNTIME_KEY, package)
    assert text.count("ok: ") == STEPS, text


async def test_run_attach(sidecar: RunningSidecar, environment: dict[str, str]) -> None:
    """`opencode run --attach` with a model that no session used yet runs its tool and ends with 0.

    It does not wait for its events when the prompt is answered, so what is looked for comes before.
    """
    arguments = ["run", "--attach", sidecar.url, "-m", "litellm/house-model"]
    prompt = "[[bash: echo from-run-attach]] [[then]] [[bash: sleep 3]] [[then]] [[say: done]]"
    command = [str(OPENCODE), *arguments, prompt]
    async with Terminal.running(command, environment, columns=120, rows=30) as running:
        await running.until("from-run-attach", count=2)
        assert await running.ended() == 0


async def tool_runs(http: aiohttp.ClientSession) -> None:
    """Wait until a tool of the newest session runs."""

    async def runs() -> bool:
        async with http.get("/session") as response:
            newest = (await response.json())[0]["id"]
        async with http.get(f"/session/{newest}/message") as response:
            return '"status":"running"' in await response.text()

    await until(runs)


async def test_the_terminal_interface(sidecar: RunningSidecar, terminal: Terminal) -> None:
    """Choose a model from the gateway's list, prompt, see a tool call and the answer, abort another turn."""
    await terminal.type("/models")
    await terminal.until("/models", count=2)
    await terminal.until_gone("/agents")  # Enter takes what the list of commands offers
    await terminal.type("\r")
    await terminal.until("Select model")
    await terminal.until("openai/gpt-4o-mini")
    await terminal.type("qwen")
    await terminal.until_gone("claude-sonnet-4-5")
    await terminal.type("\r")
    await terminal.until("ollama/qwen3:8b LiteLLM")

    await terminal.type("[[bash: echo se''en]] [[then]] [[say: the answer]]")
    await terminal.type("\r")
    await terminal.until("the answer", count=2)
    assert "seen" in terminal.text

    await terminal.type("[[bash: sleep 50]]")
    await terminal.type("\r")
    async with http_client(sidecar.url) as http:
        await tool_runs(http)
    await terminal.type("\x1b")
    await terminal.until("again to interrupt")
    await terminal.type("\x1b")
    await terminal.until("interrupted")


async def test_the_terminal_interface_lives_through_a_restart_of_opencode(
    sidecar: RunningSidecar, terminal: Terminal
) -> None:
    """Its event stream stays open over the replacement of the child: the next turn is shown, live."""
    await terminal.type("[[say: before it]]\r")
    await terminal.until("before it", count=2)
    boot = sidecar.supervisor.boot
    sidecar.supervisor.request_restart("a test", force=True)
    await until(lambda: sidecar.supervisor.boot != boot and sidecar.supervisor.state == "ready")

    await terminal.type("[[say: and after it]]\r")
    await terminal.until("and after it", count=2)


async def test_basic_credentials(sidecar: RunningSidecar) -> None:
    """The key is the password of any user, on opencode's routes only; a wrong one gets the challenge."""
    async with http_client(sidecar.url, key=None) as http:

        async def status(path: str, password: str, **headers: str) -> aiohttp.ClientResponse:
            pair = base64.b64encode(f"opencode:{password}".encode()).decode()
            async with http.get(path, headers={"authorization": f"Basic {pair}", **headers}) as got:
                await got.read()
                return got

        assert (await status("/path", RUNTIME_KEY)).status == 200
        refused = await status("/path", RUNTIME_KEY + "x")
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        body = await refused.json()
        assert body["name"] == "AuthenticationError"
        assert body["data"]["message"] == body["error"]["message"]
        managed = await status("/v1/models", RUNTIME_KEY)
        assert managed.status == 401
        assert "www-authenticate" not in managed.headers
        # A browser adds remembered credentials to the requests of any page.
        page = await status("/path", RUNTIME_KEY, origin="https://elsewhere.example")
        assert page.status == 403
        for odd in ("Basic", "Basic !!", "Basic " + base64.b64encode(b"\xff\xfe").decode()):
            async with http.get("/path", headers={"authorization": odd}) as response:
                assert response.status == 401


async def test_what_is_answered_of_providers_is_opencodes_own(sidecar: RunningSidecar) -> None:
    """What we make of a model that no session uses has the shape, and the facts, that opencode gives it."""
    model = "openai/gpt-4o"
    async with http_client(sidecar.url) as http:

        async def shown() -> dict[str, object]:
            async with http.get("/config/providers") as response:
                (provider,) = (await response.json())["providers"]
            models: dict[str, dict[str, object]] = provider["models"]
            return models[model]

        made = await shown()
        body = {"title": "t", "model": {"providerID": "litellm", "id": model}}
        async with http.post("/session", json=body) as response:
            assert response.status == 200, await response.text()
        opencodes = await shown()
    assert {**opencodes, "variants": None} == {**made, "variants": None}
