"""A session with repositories, from create to the agent that reads them, through the real opencode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.fakes.git_server import GitServer, make_repository
from tests.harness import (
    GATEWAY_KEY,
    RUNTIME_KEY,
    http_client,
    make_settings,
    sidecar_for,
    types_of,
    until_idle,
    user_message,
)

TOKEN = "ghp_the-token-of-the-session"


@dataclass
class Bench:
    """A sidecar with its child, the strict SDK, and a git host."""

    sidecar: RunningSidecar
    sdk: anthropic.AsyncAnthropic
    host: GitServer
    data_dir: Path
    agent_id: str
    environment_id: str

    async def session(self, *resources: dict[str, Any]) -> Any:
        """Create a session with these repositories."""
        return await self.sdk.beta.sessions.create(
            agent=self.agent_id,
            environment_id=self.environment_id,
            resources=[{"type": "github_repository", **item} for item in resources],
        )

    async def run(self, session_id: str, text: str) -> list[dict[str, Any]]:
        """Send a message; return the events of its turn."""
        path = f"/v1/sessions/{session_id}/events"
        async with http_client(self.sidecar.url) as http, http.get(f"{path}/stream") as stream:
            await http.post(path, json={"events": [user_message(text)]})
            return await until_idle(stream)


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One sidecar for all tests of this file."""
    root = tmp_path_factory.mktemp("resources")
    for room in ("public", "private"):
        (root / "host" / room).mkdir(parents=True)
        make_repository(root / "host" / room / "app.git")
    host = GitServer(root / "host", token=TOKEN)
    await host.start()
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    async with (
        sidecar_for(make_settings(root / "data", gateway.url)) as sidecar,
        anthropic.AsyncAnthropic(
            api_key=RUNTIME_KEY, base_url=sidecar.url, _strict_response_validation=True
        ) as sdk,
    ):
        model = (await sdk.models.list()).data[0].id
        toolset: Any = {"type": "agent_toolset_20260401"}
        agent = await sdk.beta.agents.create(name="a", model=model, tools=[toolset])
        environment = await sdk.beta.environments.create(name="e")
        yield Bench(sidecar, sdk, host, root / "data", agent.id, environment.id)
    await gateway.close()
    await host.close()


async def test_the_agent_finds_its_repository(bench: Bench) -> None:
    """The first turn clones, with the token, and the agent's commands see the working copy."""
    url = f"{bench.host.url}/private/app.git"
    session = await bench.session({"url": url, "authorization_token": TOKEN})
    (resource,) = session.resources
    assert (resource.url, resource.mount_path) == (url, "/workspace/app")
    events = await bench.run(session.id, "[[bash: cat app/README.md; git -C app remote -v; env]]")
    (result,) = [event for event in events if event["type"] == "agent.tool_result"]
    assert "branch main" in result["content"][0]["text"]
    assert TOKEN not in str(events)
    assert "session.error" not in types_of(events)


async def test_a_failed_clone_ends_the_turn_and_a_new_token_heals_the_next(bench: Bench) -> None:
    """`session.error` names the repository and the model is not asked; the session goes on."""
    url = f"{bench.host.url}/private/app.git"
    session = await bench.session({"url": url, "authorization_token": "wrong"})
    events = await bench.run(session.id, "[[bash: ls]]")
    (error,) = [event["error"] for event in events if event["type"] == "session.error"]
    assert error["type"] == "repository_authentication_error"
    assert (error["repository_url"], error["retry_status"]) == (url, {"type": "exhausted"})
    assert events[-1]["stop_reason"] == {"type": "retries_exhausted"}
    assert "span.model_request_start" not in types_of(events)

    resources = bench.sdk.beta.sessions.resources
    (resource,) = session.resources
    updated = await resources.update(resource.id, session_id=session.id, authorization_token=TOKEN)
    assert updated.updated_at > resource.updated_at
    events = await bench.run(session.id, "[[bash: cat app/README.md]]")
    assert "session.error" not in types_of(events)
    (result,) = [event for event in events if event["type"] == "agent.tool_result"]
    assert "branch main" in result["content"][0]["text"]
    listed = await bench.sdk.beta.sessions.events.list(session.id)
    assert types_of(listed.data).count("session.error") == 1


async def test_the_sdk_manages_resources(bench: Bench) -> None:
    """List, retrieve and delete pass strict validation; the session's own answer follows."""
    url = f"{bench.host.url}/public/app.git"
    session = await bench.session(
        {"url": url, "mount_path": "/workspace/one"},
        {
            "url": url,
            "mount_path": "/workspace/two",
            "checkout": {"type": "branch", "name": "side"},
        },
    )
    resources = bench.sdk.beta.sessions.resources
    one, two = session.resources
    assert two.checkout.name == "side"
    assert [item.id async for item in resources.list(session.id)] == [one.id, two.id]
    assert [item.id async for item in resources.list(session.id, limit=1)] == [one.id, two.id]
    assert await resources.retrieve(one.id, session_id=session.id) == one
    deleted = await resources.delete(one.id, session_id=session.id)
    assert (deleted.id, deleted.type) == (one.id, "session_resource_deleted")
    assert [r.id for r in (await bench.sdk.beta.sessions.retrieve(session.id)).resources] == [
        two.id
    ]
    with pytest.raises(anthropic.NotFoundError):
        await resources.retrieve(one.id, session_id=session.id)
    events = await bench.run(session.id, "[[bash: ls; cat two/README.md]]")
    (result,) = [event for event in events if event["type"] == "agent.tool_result"]
    assert result["content"][0]["text"].split() == ["two", "branch", "side"]


async def test_resources_cannot_be_added_later(bench: Bench) -> None:
    """Adding a file is refused with a reason; and so is changing an archived session."""
    session = await bench.session({"url": f"{bench.host.url}/public/app.git"})
    resources = bench.sdk.beta.sessions.resources
    with pytest.raises(anthropic.BadRequestError, match="not offered"):
        await resources.add(session.id, type="file", file_id="file_1")
    await bench.sdk.beta.sessions.archive(session.id)
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        await resources.delete(session.resources[0].id, session_id=session.id)


async def test_bad_resources_answer_400(bench: Bench) -> None:
    """A colliding mount path creates no session."""
    url = f"{bench.host.url}/public/app.git"
    before = [session.id async for session in bench.sdk.beta.sessions.list()]
    with pytest.raises(anthropic.BadRequestError, match=r"resources\.1\.mount_path"):
        await bench.session({"url": url}, {"url": url})
    assert [session.id async for session in bench.sdk.beta.sessions.list()] == before
