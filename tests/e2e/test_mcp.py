"""MCP servers of a session: which tools, with whose permission, at which URL, with which token.

The server is the official `mcp` package in a process of its own; opencode is the real one.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.fakes.mcp_process import McpProcess, mcp_server
from tests.harness import text_of, types_of
from tests.raw_client import RawClient, plain

TOOLSET = {"type": "agent_toolset_20260401"}
TOKEN = "token-of-the-tests"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[McpProcess]:
    async with mcp_server() as process:
        yield process


def toolset(name: str, *enabled: str, default: bool = False, policy: str = "") -> dict[str, Any]:
    """Return an `mcp_toolset` in which only the named tools are enabled, or all by `default`."""
    given = {"permission_policy": {"type": policy}} if policy else {}
    return {
        "type": "mcp_toolset",
        "mcp_server_name": name,
        "default_config": {"enabled": default, **given},
        "configs": [{"name": tool, "enabled": True, **given} for tool in enabled],
    }


def servers(**urls: str) -> list[dict[str, str]]:
    return [{"type": "url", "name": name, "url": url} for name, url in urls.items()]


def offered(gateway: DemoGateway) -> list[str]:
    """Return the names of the tools that the newest model request offers."""
    body = gateway.requests[-1].body
    return sorted(tool["function"]["name"] for tool in body.get("tools") or [])


def error_of(turn: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one error of a turn that failed and left its session usable."""
    (event,) = plain(turn, "session.error")
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    assert event["error"]["retry_status"] == {"type": "exhausted"}
    error: dict[str, Any] = event["error"]
    return error


async def test_only_enabled_tools_are_offered(
    raw: RawClient, gateway: DemoGateway, server: McpProcess
) -> None:
    """Deny by default as LAP sends it: the model sees the named tool and no other, and it works."""
    session = await raw.new_session(
        tools=[toolset("platform", "echo", policy="always_allow")],
        mcp_servers=servers(platform=server.url),
    )
    turn = await raw.turn(session, '[[tool: echo {"text": "heard: \u6994"}]]')
    assert offered(gateway) == ["platform_echo"]
    (use,) = plain(turn, "agent.mcp_tool_use")
    assert (use["name"], use["mcp_server_name"]) == ("echo", "platform")
    assert use["input"] == {"text": "heard: \u6994"}
    assert use["evaluated_permission"] == "allow"
    (result,) = plain(turn, "agent.mcp_tool_result")
    assert (result["mcp_tool_use_id"], result["is_error"]) == (use["id"], False)
    assert result["content"] == [{"type": "text", "text": "heard: \u6994"}]
    assert "heard: \u6994" in text_of(turn)
    check_events(turn)


async def test_a_tool_that_is_not_enabled_cannot_be_called(
    raw: RawClient, server: McpProcess
) -> None:
    """A model that calls it all the same gets an error from us, not the tool's answer."""
    session = await raw.new_session(
        tools=[toolset("platform", "echo", policy="always_allow")],
        mcp_servers=servers(platform=server.url),
    )
    turn = await raw.turn(session, '[[tool: platform_fail {"text": "x"}]]')
    assert not any("cannot do x" in str(event) for event in turn)
    check_events(turn)


async def test_mcp_tools_ask_unless_told_otherwise(raw: RawClient, server: McpProcess) -> None:
    """The default policy of an `mcp_toolset` is `always_ask`: allowed it runs, denied it does not."""
    session = await raw.new_session(
        tools=[toolset("hub", default=True)], mcp_servers=servers(hub=server.url)
    )
    async with raw.stream(session) as reader:
        results = []
        for answer in ("allow", "deny"):
            await raw.send(session, '[[tool: hub_echo {"text": "asked"}]]')
            events = await reader.until("session.status_idle")
            (use,) = plain(events, "agent.mcp_tool_use")
            assert use["evaluated_permission"] == "ask"
            reason = {"type": "requires_action", "event_ids": [use["id"]]}
            assert events[-1]["stop_reason"] == reason
            confirmation = {"type": "user.tool_confirmation", "tool_use_id": use["id"]}
            await raw.send_events(session, {**confirmation, "result": answer})
            results += plain(await reader.until("session.status_idle"), "agent.mcp_tool_result")
    allowed, denied = results
    assert (allowed["is_error"], allowed["content"][0]["text"]) == (False, "asked")
    assert denied["is_error"] is True
    check_events(await raw.events(session))


async def test_results_of_any_kind(raw: RawClient, server: McpProcess) -> None:
    """A tool that fails is an error result; an image is an image."""
    session = await raw.new_session(
        tools=[toolset("hub", default=True, policy="always_allow")],
        mcp_servers=servers(hub=server.url),
    )
    failed = await raw.turn(session, '[[tool: hub_fail {"text": "this"}]]')
    drawn = await raw.turn(session, "[[tool: hub_picture {}]]")
    (error,) = plain(failed, "agent.mcp_tool_result")
    assert error["is_error"] is True
    assert "cannot do this" in error["content"][0]["text"]
    (image,) = plain(drawn, "agent.mcp_tool_result")
    (block,) = [block for block in image["content"] if block["type"] == "image"]
    assert block["source"]["media_type"] == "image/png"
    assert block["source"]["data"].startswith("iVBOR")
    check_events(await raw.events(session))


async def test_names_that_could_be_confused(raw: RawClient, server: McpProcess) -> None:
    """Server names with odd characters, and one that is the beginning of another, are distinguished."""
    urls = {"hub": server.url, "hub_two": server.url, "my.server": server.url}
    tools = [toolset(name, default=True, policy="always_allow") for name in urls]
    session = await raw.new_session(tools=tools, mcp_servers=servers(**urls))
    text = '[[tools: hub_echo {"text": "1"} ;; my_server_echo {"text": "3"}]]'
    turn = await raw.turn(session, text)
    named = {e["mcp_server_name"]: e["name"] for e in plain(turn, "agent.mcp_tool_use")}
    assert named == {"hub": "echo", "my.server": "echo"}
    check_events(turn)


async def test_the_same_name_in_two_sessions_is_two_servers(
    raw: RawClient, server: McpProcess, gateway: DemoGateway
) -> None:
    """Two sessions run at the same time with one server name and two URLs; each reaches its own."""
    async with mcp_server() as other:
        sessions = [
            await raw.new_session(
                tools=[toolset("platform", default=True, policy="always_allow")],
                mcp_servers=servers(platform=url),
            )
            for url in (server.url, f"{other.url}?session_id=two")
        ]
        texts = [f'[[tool: platform_echo {{"text": "{s}"}}]]' for s in sessions]
        turns = await asyncio.gather(*map(raw.turn, sessions, texts))
        results = [plain(turn, "agent.mcp_tool_result")[0] for turn in turns]
        assert [r["content"][0]["text"] for r in results] == sessions
    # The second server is gone: its session notices, the other does not.
    first, second = await asyncio.gather(*map(raw.turn, sessions, texts))
    assert plain(first, "agent.mcp_tool_result")[0]["is_error"] is False
    assert plain(second, "session.error") or plain(second, "agent.mcp_tool_result")[0]["is_error"]


async def test_a_server_that_is_not_there(raw: RawClient) -> None:
    """The turn ends with an error of its own type that names the server, and costs no model request."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
    session = await raw.new_session(
        tools=[TOOLSET, toolset("away", default=True)], mcp_servers=servers(away=url)
    )
    turn = await raw.turn(session, "[[say: hello]]")
    error = error_of(turn)
    assert error["type"] == "mcp_connection_failed_error"
    assert error["mcp_server_name"] == "away"
    assert "span.model_request_start" not in types_of(turn)


async def test_a_server_that_wants_a_token(raw: RawClient) -> None:
    """Without a credential the server's 401 is an authentication error that names the server."""
    async with mcp_server(TOKEN) as guarded:
        session = await raw.new_session(
            tools=[toolset("guarded", default=True)], mcp_servers=servers(guarded=guarded.url)
        )
        error = error_of(await raw.turn(session, "[[say: hello]]"))
    assert error["type"] == "mcp_authentication_failed_error"
    assert error["mcp_server_name"] == "guarded"


async def vault_with(raw: RawClient, url: str, token: str) -> str:
    """Make a vault with one bearer for one URL, as LAP does; return its id."""
    vault = await raw.call("POST", "/v1/vaults?beta=true", {"display_name": "LiteLLM MCP Gateway"})
    auth = {"type": "static_bearer", "mcp_server_url": url, "token": token}
    await raw.call("POST", f"/v1/vaults/{vault['id']}/credentials?beta=true", {"auth": auth})
    return str(vault["id"])


async def test_a_vaults_bearer_reaches_exactly_its_url(raw: RawClient, server: McpProcess) -> None:
    """The token is sent to the server it was stored for, and to no other of the same session."""
    async with mcp_server(TOKEN) as guarded:
        vault = await vault_with(raw, guarded.url, TOKEN)
        agent = {
            "tools": [
                toolset(name, default=True, policy="always_allow") for name in ("guarded", "open")
            ],
            "mcp_servers": servers(guarded=guarded.url, open=server.url),
        }
        session = await raw.new_session(vault_ids=[vault], **agent)
        turn = await raw.turn(session, "[[tools: guarded_headers {} ;; open_headers {}]]")
        uses = {e["id"]: e["mcp_server_name"] for e in plain(turn, "agent.mcp_tool_use")}
        shown = {
            uses[e["mcp_tool_use_id"]]: e["content"][0]["text"]
            for e in plain(turn, "agent.mcp_tool_result")
        }
        # The guarded server answers nothing without the token; what it says of it is masked.
        assert shown == {"guarded": "Bearer ***", "open": "none"}

        stranger = await raw.new_session(**agent)
        error = error_of(await raw.turn(stranger, "[[say: hello]]"))
        assert error["type"] == "mcp_authentication_failed_error", "vaults are per session"


async def test_a_vaults_wrong_bearer(raw: RawClient) -> None:
    """A token that the server refuses is an authentication error, and is not in its message."""
    async with mcp_server(TOKEN) as guarded:
        vault = await vault_with(raw, guarded.url, "a-wrong-token")
        session = await raw.new_session(
            tools=[toolset("guarded", default=True)],
            mcp_servers=servers(guarded=guarded.url),
            vault_ids=[vault],
        )
        error = error_of(await raw.turn(session, "[[say: hello]]"))
    assert error["type"] == "mcp_authentication_failed_error"
    assert "a-wrong-token" not in error["message"]
