"""opencode's own API through the sidecar: what is forwarded, what is not, and model names on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.harness import http_client, read_frames, text_of, types_of, user_message
from tests.raw_client import RawClient
from tests.waiting import PATIENCE_SECONDS, patience


@pytest.fixture
async def http(sidecar: RunningSidecar) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_client(sidecar.url) as session:
        yield session


async def post(http: aiohttp.ClientSession, path: str, body: Any) -> Any:
    async with http.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def prompt(text: str, **fields: Any) -> dict[str, Any]:
    return {"parts": [{"type": "text", "text": text}], **fields}


def said(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@pytest.mark.parametrize(
    "model",
    [
        {"providerID": "litellm", "modelID": "openai/gpt-4o-mini"},
        {"providerID": "openai", "modelID": "gpt-4o-mini"},
        {"providerID": "litellm", "modelID": "litellm/openai/gpt-4o-mini"},
    ],
)
async def test_a_prompts_model_is_looked_up_and_known_to_the_child(
    http: aiohttp.ClientSession, gateway: DemoGateway, model: dict[str, str]
) -> None:
    """However the provider was guessed, the gateway is asked for the model it lists."""
    session = await post(http, "/session", {"title": "native"})
    answer = await post(
        http, f"/session/{session['id']}/message", prompt("[[say: hi]]", model=model)
    )

    assert said(answer) == "hi"
    asked = [r.body["model"] for r in gateway.requests if r.path.endswith("/chat/completions")]
    assert asked[-1] == "openai/gpt-4o-mini"


async def test_an_unknown_model_is_refused_before_the_child_sees_it(
    http: aiohttp.ClientSession,
) -> None:
    """400 with near matches instead of opencode's bare 500."""
    session = await post(http, "/session", {"title": "native"})
    model = {"providerID": "litellm", "modelID": "gpt-4oo"}
    path = f"/session/{session['id']}/message"
    async with http.post(path, json=prompt("hi", model=model)) as response:
        body = await response.json()

    assert response.status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert "openai/gpt-4o" in body["error"]["message"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///proc/self/environ",
        "FILE:///etc/passwd",
        "fi\nle:///etc/passwd",
        " file:///etc/passwd",
        "file:/etc/passwd",
        "file:\\\\etc\\passwd",
        "file://localhost/etc/passwd",
        "file:///%65tc/passwd",
        "file:///{root}/native/../../../opencode/opencode.json",
    ],
)
async def test_a_file_outside_the_workspaces_is_not_attached(
    http: aiohttp.ClientSession, sidecar: RunningSidecar, url: str
) -> None:
    """opencode would read its own environment for a prompt, keys and all."""
    async with http.get("/path") as response:
        root = Path((await response.json())["directory"]).parent
    session = (await post(http, "/session", {"title": "native"}))["id"]
    part = {"type": "file", "mime": "text/plain", "url": url.replace("/{root}", str(root))}
    body = {"parts": [{"type": "text", "text": "hi"}, part]}
    async with http.post(f"/session/{session}/message", json=body) as response:
        refused = await response.json()
    assert (response.status, refused["error"]["type"]) == (403, "permission_error"), refused
    assert refused["error"]["message"].startswith("parts.1.url: only files below")
    command = {"command": "init", "arguments": "see @/proc/self/environ"}
    async with http.post(f"/session/{session}/command", json=command) as response:
        assert response.status == 403
    async with http.get(f"/session/{session}/message") as response:
        assert sidecar.relay.token not in await response.text()


async def test_a_file_of_the_workspace_is_attached(
    http: aiohttp.ClientSession, gateway: DemoGateway
) -> None:
    """The model is shown it."""
    async with http.get("/path") as response:
        directory = Path((await response.json())["directory"])
    (directory / "notes.txt").write_text("what the notes say")
    session = (await post(http, "/session", {"title": "native"}))["id"]
    url = (directory / "notes.txt").as_uri()
    part = {"type": "file", "mime": "text/plain", "url": url, "filename": "notes.txt"}
    model = {"providerID": "litellm", "modelID": "openai/gpt-4o"}
    body = {"model": model, "parts": [{"type": "text", "text": "[[say: read]]"}, part]}
    await post(http, f"/session/{session}/message", body)
    assert "what the notes say" in json.dumps(gateway.requests[-1].body)


async def test_a_sub_agents_model_is_looked_up(
    http: aiohttp.ClientSession, gateway: DemoGateway
) -> None:
    """A part of a prompt may name one: refused as every other, or known to opencode when it is used."""
    session = await post(http, "/session", {"title": "native"})
    part = {"type": "subtask", "agent": "general", "description": "d", "prompt": "[[say: found]]"}

    async def ask(model_id: str) -> tuple[int, str]:
        model = {"providerID": "openai", "modelID": model_id}
        own = {"providerID": "litellm", "modelID": "openai/gpt-4o"}
        body = {"model": own, "parts": [{**part, "model": model}]}
        async with http.post(f"/session/{session['id']}/message", json=body) as response:
            return response.status, await response.text()

    status, text = await ask("gpt-4oo")
    assert status == 400
    assert "openai/gpt-4o" in text
    status, text = await ask("gpt-4o-mini")
    assert status == 200, text
    asked = [r.body["model"] for r in gateway.requests if r.path.endswith("/chat/completions")]
    assert "openai/gpt-4o-mini" in asked


async def test_events_of_opencode_stream_through(http: aiohttp.ClientSession) -> None:
    """The global feed is passed on frame by frame."""
    async with http.get("/global/event") as response, patience():
        assert response.headers["content-type"].startswith("text/event-stream")
        line = await response.content.readline()

    assert json.loads(line.removeprefix(b"data: "))["payload"]["type"] == "server.connected"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/global/config"),
        ("PATCH", "/config"),
        ("PATCH", "/global/config"),
        ("POST", "/global/dispose"),
        ("POST", "/instance/dispose"),
        ("PUT", "/auth/litellm"),
        ("GET", "/pty"),
        ("POST", "/mcp"),
        ("POST", "/%67lobal/dispose"),
    ],
)
async def test_what_leaks_or_disturbs_is_not_forwarded(
    http: aiohttp.ClientSession, sidecar: RunningSidecar, method: str, path: str
) -> None:
    """Routes that answer keys or reach beyond one session are 403 (or unknown), and nothing happens."""
    boot = sidecar.supervisor.boot
    async with http.request(method, path, json={}) as response:
        body = await response.json()

    assert response.status in {403, 404, 405}
    assert body["type"] == "error"
    assert sidecar.supervisor.boot == boot


async def test_head_is_get_without_a_body(http: aiohttp.ClientSession) -> None:
    """On opencode's routes, too, which itself answers it with 500."""
    async with http.get("/path") as got, http.head("/path") as headed:
        assert (headed.status, await headed.read()) == (200, b"")
        assert headed.headers["content-type"] == got.headers["content-type"]
        assert headed.headers["content-length"] == got.headers["content-length"]
    async with http.get("/path") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/session", "GET, HEAD, POST"),
        ("OPTIONS", "/session", "GET, HEAD, POST"),
        ("PUT", "/session/ses_1", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/session/ses_1/prompt_async", "POST"),
        ("HEAD", "/session/ses_1/abort", "POST"),
        ("DELETE", "/path", "GET, HEAD"),
        # Those that the sidecar answers itself.
        ("PATCH", "/config", "GET, HEAD"),
        ("OPTIONS", "/config/providers", "GET, HEAD"),
        ("GET", "/log", "POST"),
        ("HEAD", "/global/event", "GET"),
    ],
)
async def test_a_method_that_a_route_does_not_have(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    """405 with those that are served, whether opencode or the sidecar answers them."""
    async with http.request(method, path) as response:
        body = await response.read()
    assert (response.status, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        error = json.loads(body)
        assert (error["error"]["type"], error["name"]) == (
            "invalid_request_error",
            "MethodNotAllowedError",
        )


@pytest.mark.parametrize("path", ["/", "/nothing-here", "/v1/nothing", "/session/x/y/z"])
async def test_an_unknown_path_is_a_json_404(http: aiohttp.ClientSession, path: str) -> None:
    """The child would answer its web page with status 200."""
    async with http.get(path) as response:
        body = await response.json()

    assert response.status == 404
    assert body["error"]["type"] == "not_found_error"
    assert ("console at /console" in body["error"]["message"]) is (path == "/")


@pytest.mark.parametrize("directory", ["/etc", "/", "../..", "%2Fetc"])
async def test_a_directory_outside_the_workspaces_is_refused(
    http: aiohttp.ClientSession, directory: str
) -> None:
    """By query or header, it would be arbitrary access to files."""
    async with http.get("/file", params={"directory": directory, "path": "."}) as by_query:
        pass
    headers = {"x-opencode-directory": directory}
    async with http.get("/file", params={"path": "."}, headers=headers) as by_header:
        pass

    assert (by_query.status, by_header.status) == (403, 403)


@pytest.mark.parametrize("name", ["\0", "a\0b", "y" * 300, "z" * 5000, "loop/x"])
async def test_a_directory_that_is_no_path(http: aiohttp.ClientSession, name: str) -> None:
    """By query or header it is a 400 that says so, not a failure of ours."""
    async with http.get("/path") as response:
        ours = Path((await response.json())["directory"])
    with suppress(FileExistsError):
        (ours / "loop").symlink_to("loop")
    directory = quote(f"{ours}/{name}", safe="")
    headers = {"x-opencode-directory": directory}
    for path, options in (
        ("/path", {"headers": headers}),
        (URL(f"/path?directory={directory}", encoded=True), {}),
    ):
        async with http.get(path, **options) as response:
            body = await response.json()
        assert (response.status, body["error"]["type"]) == (400, "invalid_request_error"), body
        assert body["error"]["message"].startswith("directory: ")


async def test_no_answer_holds_the_relays_token(
    http: aiohttp.ClientSession, sidecar: RunningSidecar
) -> None:
    """With it anyone could spend the gateway's money as opencode. All reads without parameters are tried."""
    assert sidecar.supervisor.client is not None
    document = await sidecar.supervisor.client.doc()
    reads = [p for p, methods in document["paths"].items() if "get" in methods and "{" not in p]
    token, url = sidecar.relay.token, sidecar.relay.url
    served = []
    for path in reads:
        if path.endswith("/event"):
            continue
        async with http.get(path, timeout=aiohttp.ClientTimeout(PATIENCE_SECONDS)) as response:
            text = await response.text()
        assert token not in text, path
        assert url not in text, path
        if response.status == 200:
            served.append(path)
    assert {"/session", "/path", "/agent"} <= set(served)


async def test_the_native_api_needs_the_key(sidecar: RunningSidecar) -> None:
    """There is no way around the key."""
    async with http_client(sidecar.url, key=None) as http, http.get("/session") as response:
        assert response.status == 401


async def test_a_session_whose_conversation_is_gone_ends_for_good(
    http: aiohttp.ClientSession, sidecar: RunningSidecar, raw: RawClient
) -> None:
    """opencode has lost the session: the next turn is a terminal error, streams end, no 500s."""
    session_id = await raw.new_session()
    assert text_of(await raw.turn(session_id, "[[say: hello]]")) == "hello"
    record = await sidecar.sessions.record(session_id)
    assert sidecar.supervisor.client is not None
    assert record.child_session_id is not None
    await sidecar.supervisor.client.delete_session(record.child_session_id)
    async with http.get(f"/v1/sessions/{session_id}/events/stream") as stream:
        events = {"events": [user_message("[[say: and now?]]")]}
        await post(http, f"/v1/sessions/{session_id}/events", events)
        async with patience():
            seen = [event async for event in read_frames(stream)]
    async with http.post(f"/v1/sessions/{session_id}/events", json=events) as refused:
        assert refused.status == 409

    assert types_of(seen) == [
        "user.message",
        "session.status_running",
        "session.thread_status_running",
        "session.error",
        "session.thread_status_terminated",
        "session.status_terminated",
    ]
    assert seen[3]["error"]["retry_status"] == {"type": "terminal"}
    assert await raw.status(session_id) == "terminated"
