"""Tokens that a server says again, in whatever shape, are in no event, no answer and no log.

The real opencode, an MCP server and a git host that repeat the token which they were sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.confined import Sessions, confined, install, results
from tests.fakes.echoes import gives_away, shapes_of
from tests.fakes.git_server import GitServer, git, make_repository
from tests.fakes.mcp_process import mcp_server

TOKEN = 'tok/en+of=the?tests&"more"~end'


@pytest.fixture(scope="module")
async def sessions(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sessions]:
    """A sidecar whose log is read, too; at the end nothing of it may hold the token."""
    installation = install(tmp_path_factory.mktemp("installation"), "own")
    data_dir = tmp_path_factory.getbasetemp() / "echoed"
    async with confined(installation, data_dir, SIDECAR_LOG_LEVEL="debug") as made:
        yield made
        assert gives_away(made.process.output, TOKEN) == []


@pytest.fixture(scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitServer]:
    """A git host that says the token again: in a refusal, and in what it gives to be cloned."""
    root = tmp_path_factory.mktemp("host")
    for room in ("private", "telltale"):
        (root / room).mkdir()
        make_repository(root / room / "app.git")
    work = root / "private" / "app.work"
    git("config", "--file", ".gitmodules", "submodule.x.path", "x", cwd=work)
    url = f"https://x-access-token:{TOKEN}@127.0.0.1/x.git"
    git("config", "--file", ".gitmodules", "submodule.x.url", url, cwd=work)
    (work / "shapes").write_text("\n".join(shapes_of(TOKEN)))
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", f"token {TOKEN}", cwd=work)
    git("push", "--quiet", str(root / "private" / "app.git"), "main", cwd=work)
    server = GitServer(root, token=TOKEN)
    await server.start()
    yield server
    await server.close()


async def everything(sessions: Sessions, session: str) -> str:
    """Return all that the API says of a session."""
    said = []
    for path in ("", "/events?limit=1000", "/resources", "/threads"):
        async with sessions.http.get(f"/v1/sessions/{session}{path}") as answer:
            said.append(await answer.text())
    return "\n".join(said)


def test_the_search_finds_every_shape() -> None:
    """Alone, in JSON, and in JSON inside of JSON."""
    for shape in shapes_of(TOKEN):
        for text in (shape, json.dumps({"x": shape}), json.dumps({"x": json.dumps([shape])})):
            assert gives_away(text, TOKEN), text


async def mcp_session(sessions: Sessions, url: str, token: str) -> str:
    """Return a session with the MCP server and a vault's token for it."""
    vault = (await sessions.post("/v1/vaults", {"display_name": "v"}))["id"]
    auth = {"type": "static_bearer", "mcp_server_url": url, "token": token}
    await sessions.post(f"/v1/vaults/{vault}/credentials", {"auth": auth})
    toolset = {
        "type": "mcp_toolset",
        "mcp_server_name": "hub",
        "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
        "configs": [],
    }
    agent = {
        "name": "a",
        "model": sessions.model,
        "tools": [toolset],
        "mcp_servers": [{"type": "url", "name": "hub", "url": url}],
    }
    created = (await sessions.post("/v1/agents", agent))["id"]
    environment = (await sessions.post("/v1/environments", {"name": "e"}))["id"]
    body = {"agent": created, "environment_id": environment, "vault_ids": [vault]}
    return str((await sessions.post("/v1/sessions", body))["id"])


@pytest.mark.parametrize("is_error", [False, True], ids=["result", "error"])
async def test_an_mcp_server_repeats_its_token(sessions: Sessions, is_error: bool) -> None:
    """In a tool's result or error every shape is masked; the rest of the text stays."""
    async with mcp_server(TOKEN) as server:
        session = await mcp_session(sessions, server.url, TOKEN)
        arguments = json.dumps({"is_error": is_error})
        turn = await sessions.turn(session, f"[[tool: hub_echo_token {arguments}]]")
    (result,) = [event for event in turn if event["type"] == "agent.mcp_tool_result"]
    text = "".join(block["text"] for block in result["content"])
    assert result["is_error"] is is_error
    assert "***" in text
    assert "@host/app.git" in text
    assert gives_away(json.dumps(turn), TOKEN) == []
    assert gives_away(await everything(sessions, session), TOKEN) == []


async def test_an_mcp_server_refuses_with_the_token_in_its_words(sessions: Sessions) -> None:
    """The error of the turn says what the server answered, without the token."""
    async with mcp_server("another token") as server:
        session = await mcp_session(sessions, server.url, TOKEN)
        turn = await sessions.turn(session, "[[say: hello]]")
    (error,) = [event["error"] for event in turn if event["type"] == "session.error"]
    assert error["type"] == "mcp_authentication_failed_error"
    assert gives_away(json.dumps(turn), TOKEN) == []


async def repository_session(sessions: Sessions, url: str) -> str:
    """Return a session with that repository and the token."""
    tools = [{"type": "agent_toolset_20260401"}]
    agent = await sessions.post(
        "/v1/agents", {"name": "a", "model": sessions.model, "tools": tools}
    )
    environment = (await sessions.post("/v1/environments", {"name": "e"}))["id"]
    resource: dict[str, Any] = {"type": "github_repository", "url": url}
    resource["authorization_token"] = TOKEN
    body = {"agent": agent["id"], "environment_id": environment, "resources": [resource]}
    return str((await sessions.post("/v1/sessions", body))["id"])


async def test_a_git_host_repeats_the_token_in_a_refusal(
    sessions: Sessions, host: GitServer
) -> None:
    """`remote:` lines of the clone's error are in the turn's error, without the token."""
    session = await repository_session(sessions, f"{host.url}/telltale/app.git")
    turn = await sessions.turn(session, "[[bash: ls]]")
    (error,) = [event["error"] for event in turn if event["type"] == "session.error"]
    assert error["type"].startswith("repository_")
    assert gives_away(json.dumps(turn), TOKEN) == []
    assert gives_away(await everything(sessions, session), TOKEN) == []


async def test_what_a_git_host_wrote_into_the_repository(
    sessions: Sessions, host: GitServer
) -> None:
    """A submodule's URL, a commit's message, `remote -v`, a trace: whatever the agent shows of it."""
    session = await repository_session(sessions, f"{host.url}/private/app.git")
    commands = (
        "cat app/shapes app/.gitmodules; cd app; git log; git remote -v; git config --list; "
        "GIT_TRACE=1 GIT_CURL_VERBOSE=1 GIT_TERMINAL_PROMPT=0 git submodule update --init 2>&1; "
        "GIT_TRACE=1 GIT_CURL_VERBOSE=1 GIT_TERMINAL_PROMPT=0 git fetch 2>&1; echo done; sleep 1"
    )
    turn = await sessions.turn(session, f"[[bash: {commands}]]")
    said = results(turn)
    assert "x-access-token:***" in said, said
    assert "done" in said
    workspace: Path = sessions.workspace(session)
    assert gives_away((workspace / "app" / "shapes").read_text(), TOKEN), "the host has written it"
    assert gives_away(json.dumps(turn), TOKEN) == []
    assert gives_away(await everything(sessions, session), TOKEN) == []
