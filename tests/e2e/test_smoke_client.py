"""A client that uses the whole API as the official Python SDK offers it, in normal and in strict mode.

Strict mode validates every answer and event against the SDK's types. The real opencode.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool
from anthropic.lib.sessions import accumulate_managed_agents_event

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.harness import RUNTIME_KEY, make_settings, sidecar_for, text_of, types_of, user_message
from tests.waiting import patience

Sdk = anthropic.AsyncAnthropic
TOOLSET: Any = {"type": "agent_toolset_20260401"}
ASKING: Any = TOOLSET | {"configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]}
LOOKUP: Any = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


class Attempts:
    """Counts the HTTP requests of a client; a retried call counts more than once."""

    def __init__(self) -> None:
        self.count = 0

    async def note(self, _request: Any) -> None:
        self.count += 1


def make_client(
    sidecar: RunningSidecar, *, is_strict: bool, attempts: Attempts | None = None
) -> Sdk:
    """Make a client with the SDK's own retries, counting what it sends."""
    hooks: Any = {"request": [attempts.note]} if attempts else {}
    return Sdk(
        base_url=sidecar.url,
        api_key=RUNTIME_KEY,
        _strict_response_validation=is_strict,
        http_client=anthropic.DefaultAsyncHttpxClient(event_hooks=hooks),
    )


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture(params=[False, True], ids=["normal", "strict"])
async def sdk(
    request: pytest.FixtureRequest, sidecar: RunningSidecar, attempts: Attempts
) -> AsyncIterator[Sdk]:
    async with make_client(sidecar, is_strict=request.param, attempts=attempts) as client:
        yield client


async def open_session(sdk: Sdk, *tools: Any, **fields: Any) -> str:
    """Create agent, environment and session; return the session's id."""
    agent = await sdk.beta.agents.create(
        name="coder", model="openai/gpt-4o", tools=list(tools or (TOOLSET,))
    )
    place = await sdk.beta.environments.create(name="place")
    session = await sdk.beta.sessions.create(agent=agent.id, environment_id=place.id, **fields)
    return session.id


async def send(sdk: Sdk, session: str, *events: Any) -> list[Any]:
    """Send events; return them as answered."""
    return list((await sdk.beta.sessions.events.send(session, events=list(events))).data or [])


async def until(stream: Any, *types: str) -> list[Any]:
    """Read to the first event of one of the types; return what was read."""
    seen = []
    async with patience():
        async for event in stream:
            seen.append(event)
            if event.type in types:
                return seen
    raise AssertionError(f"the stream ended before {types}: {types_of(seen)}")


async def history(sdk: Sdk, session: str, **query: Any) -> list[Any]:
    return [event async for event in sdk.beta.sessions.events.list(session, **query)]


async def check_history(sdk: Sdk, session: str) -> list[dict[str, Any]]:
    """Check the invariants of the session's history, and return it."""
    events = [event.model_dump(mode="json") for event in await history(sdk, session)]
    check_events(events)
    return events


async def test_models(sdk: Sdk, attempts: Attempts) -> None:
    """Steps 1-3: models page to an end, are retrieved by ids with slashes; errors are typed and final."""
    ids = [model.id async for model in sdk.models.list(limit=1)]
    assert len(ids) == len(set(ids)) >= 6
    assert [m.id async for m in sdk.models.list(lifecycle=["active"])] == ids
    assert (await sdk.models.retrieve("openai/gpt-4o")).id == "openai/gpt-4o"
    assert (await sdk.beta.models.retrieve("ollama/qwen3:8b")).id == "ollama/qwen3:8b"
    attempts.count = 0
    with pytest.raises(anthropic.NotFoundError) as missing:
        await sdk.models.retrieve("openai/none")
    assert (attempts.count, missing.value.type) == (1, "not_found_error")
    with pytest.raises(anthropic.AuthenticationError) as refused:
        await sdk.with_options(api_key="wrong").models.list()
    assert refused.value.type == "authentication_error"
    assert refused.value.request_id


async def test_environments(sdk: Sdk) -> None:
    """Step 4 and 20: environments are created, read, changed, listed and deleted, always with all fields."""
    place = await sdk.beta.environments.create(
        name="place",
        config={"type": "cloud", "networking": {"type": "unrestricted"}},
        metadata={"team": "blue"},
    )
    packages = place.config.packages
    assert packages is not None
    assert {"apt", "cargo", "gem", "go", "npm", "pip"} <= packages.model_dump().keys()
    changed = await sdk.beta.environments.update(place.id, name="other", metadata={"team": None})
    assert (changed.name, changed.metadata) == ("other", {})
    assert (await sdk.beta.environments.retrieve(place.id)).name == "other"
    assert place.id in [e.id async for e in sdk.beta.environments.list(limit=1)]
    deleted = await sdk.beta.environments.delete(place.id)
    assert (deleted.id, deleted.type) == (place.id, "environment_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await sdk.beta.environments.retrieve(place.id)


async def test_agents(sdk: Sdk, attempts: Attempts) -> None:
    """Steps 5-7, 20: versions grow with changes only, a stale one conflicts once, archived ones serve not."""
    agent = await sdk.beta.agents.create(
        name="coder", model="openai/gpt-4o", system="Be brief.", tools=[ASKING, LOOKUP]
    )
    assert agent.version == 1
    toolset: Any = agent.tools[0]
    shown = [(c.name, c.enabled, c.permission_policy.type) for c in toolset.configs]
    assert shown == [("bash", True, "always_ask"), ("web_search", False, "always_allow")]
    assert toolset.default_config.permission_policy.type == "always_allow"
    second = await sdk.beta.agents.update(agent.id, version=1, system="Be long.")
    assert second.version == 2
    attempts.count = 0
    with pytest.raises(anthropic.ConflictError):
        await sdk.beta.agents.update(agent.id, version=1, system="Be late.")
    assert attempts.count == 1, "a deterministic conflict is not retried"
    same = await sdk.beta.agents.update(agent.id, version=2, system="Be long.")
    assert same.version == 2
    versions = [v.version async for v in sdk.beta.agents.versions.list(agent.id, limit=1)]
    assert sorted(versions) == [1, 2]
    assert (await sdk.beta.agents.retrieve(agent.id, version=1)).system == "Be brief."
    assert agent.id in [a.id async for a in sdk.beta.agents.list(limit=1)]

    place = await sdk.beta.environments.create(name="place")
    assert (await sdk.beta.agents.archive(agent.id)).archived_at is not None
    with pytest.raises(anthropic.BadRequestError):
        await sdk.beta.sessions.create(agent=agent.id, environment_id=place.id)


async def test_sessions(sdk: Sdk) -> None:
    """Steps 8, 17: three agent forms, initial events, changes with their event, lists that page both ways."""
    agent = await sdk.beta.agents.create(name="coder", model="openai/gpt-4o", system="One.")
    await sdk.beta.agents.update(agent.id, system="Two.")
    place = await sdk.beta.environments.create(name="place")
    forms: list[Any] = [
        agent.id,
        {"type": "agent", "id": agent.id, "version": 1},
        {"type": "agent_with_overrides", "id": agent.id, "system": "Three.", "tools": [TOOLSET]},
    ]
    made = [
        await sdk.beta.sessions.create(agent=form, environment_id=place.id, title=f"talk {n}")
        for n, form in enumerate(forms)
    ]
    assert [s.status for s in made] == ["idle"] * 3
    assert [s.agent.system for s in made] == ["Two.", "One.", "Three."]
    assert [s.agent.version for s in made] == [2, 1, 2]

    begun = await sdk.beta.sessions.create(
        agent=agent.id, environment_id=place.id, initial_events=[user_message("[[say: begun]]")]
    )
    assert begun.status == "running"
    async with await sdk.beta.sessions.events.stream(begun.id) as stream:
        # The turn may be over before the stream opens: then it is in the list.
        if (await sdk.beta.sessions.retrieve(begun.id)).status != "idle":
            await until(stream, "session.status_idle")
    assert text_of(await check_history(sdk, begun.id)) == "begun"

    async with await sdk.beta.sessions.events.stream(made[0].id) as stream:
        changed = await sdk.beta.sessions.update(made[0].id, title="renamed", metadata={"k": "v"})
        (event,) = await until(stream, "session.updated")
    assert (changed.title, changed.metadata) == ("renamed", {"k": "v"})
    assert (event.title, event.metadata) == ("renamed", {"k": "v"})

    listed = [s.id async for s in sdk.beta.sessions.list(agent_id=agent.id, limit=1)]
    assert listed == [begun.id, *(s.id for s in reversed(made))]
    idle: Any = {"agent_id": agent.id, "statuses": ["idle"], "order": "asc"}
    first = await sdk.beta.sessions.list(**idle, limit=3)
    assert [s.id for s in first.data] == [s.id for s in made]
    second = await first.get_next_page()
    assert [s.id for s in second.data] == [begun.id]
    assert second.prev_page is not None
    back = await sdk.beta.sessions.list(**idle, limit=3, page=second.prev_page)
    assert [s.id for s in back.data] == [s.id for s in made]
    running: Any = {"agent_id": agent.id, "statuses": ["running"]}
    assert [s.id async for s in sdk.beta.sessions.list(**running)] == []


async def test_a_turn_with_previews(sdk: Sdk) -> None:
    """Steps 9, 10, 15, 16: the previews accumulate to the message, ids agree, filters work, usage adds up."""
    session = await open_session(sdk)
    async with await sdk.beta.sessions.events.stream(
        session, event_deltas=["agent.message"]
    ) as stream:
        # Here the stream is open: before there is any event.
        (sent,) = await send(sdk, session, user_message("[[slow: 8x0.03 w\u00f6rd]]"))
        snapshot: Any = None
        grown: list[str] = []
        seen = []
        async with patience():
            async for event in stream:
                snapshot = accumulate_managed_agents_event(snapshot, event)
                if event.type == "event_delta":
                    grown.append(snapshot.content[0].text)
                seen.append(event)
                if event.type == "session.status_idle":
                    break
    (final,) = [event for event in seen if event.type == "agent.message"]
    assert len(grown) > 1
    assert all(final.content[0].text.startswith(text) for text in grown)
    assert snapshot.content[0].text == final.content[0].text
    assert [e.id for e in seen if e.type == "user.message"] == [sent.id]

    listed = await history(sdk, session)
    assert [e.id for e in listed] == [e.id for e in seen if not e.type.startswith("event_")]
    newest = await sdk.beta.sessions.events.list(session, order="desc", limit=1)
    assert newest.data[0].id == listed[-1].id
    chosen = await history(sdk, session, types=["agent.message", "user.message"])
    assert types_of(chosen) == ["user.message", "agent.message"]
    middle = listed[4]
    later = await history(sdk, session, created_at_gt=middle.processed_at)
    assert [e.id for e in later] == [e.id for e in listed[5:]]

    shown = await sdk.beta.sessions.retrieve(session)
    assert shown.status == "idle"
    spent = [e.model_usage for e in listed if e.type == "span.model_request_end"]
    assert shown.usage.output_tokens == sum(usage.output_tokens for usage in spent)
    assert shown.usage.input_tokens == sum(usage.input_tokens for usage in spent)
    assert isinstance(shown.usage.output_tokens, int)


async def test_confirmations(sdk: Sdk) -> None:
    """Step 11: an ask is allowed and runs, another is denied with a message and does not."""
    session = await open_session(sdk, ASKING)
    async with await sdk.beta.sessions.events.stream(session) as stream:
        await send(sdk, session, user_message("[[bash: echo yes]]"))
        (call,) = (await until(stream, "session.status_idle"))[-1].stop_reason.event_ids
        confirmation = {"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"}
        await send(sdk, session, confirmation)
        (allowed,) = [
            e for e in await until(stream, "session.status_idle") if e.type == "agent.tool_result"
        ]
        await send(sdk, session, user_message("[[bash: echo no]]"))
        (call,) = (await until(stream, "session.status_idle"))[-1].stop_reason.event_ids
        denial = {**confirmation, "tool_use_id": call, "result": "deny", "deny_message": "not now"}
        await send(sdk, session, denial)
        (denied,) = [
            e for e in await until(stream, "session.status_idle") if e.type == "agent.tool_result"
        ]
    assert (allowed.is_error, allowed.content[0].text) == (False, "yes\n")
    assert denied.is_error
    assert "not now" in denied.content[0].text
    await check_history(sdk, session)


async def test_custom_tools(sdk: Sdk) -> None:
    """Step 12: of two calls one is answered; the second idle lists the other; then the turn goes on."""
    session = await open_session(sdk, LOOKUP)
    async with await sdk.beta.sessions.events.stream(session) as stream:
        script = '[[tools: lookup {"word": "a"} ;; lookup {"word": "b"}]]'
        await send(sdk, session, user_message(script))
        first, second = (await until(stream, "session.status_idle"))[-1].stop_reason.event_ids
        await send(sdk, session, custom_result(first, "alpha"))
        reason = (await until(stream, "session.status_idle"))[-1].stop_reason
        assert (reason.type, reason.event_ids) == ("requires_action", [second])
        await send(sdk, session, custom_result(second, "beta"))
        turn = await until(stream, "session.status_idle")
    assert text_of(turn) == "The tool answered:\nalpha\nbeta"
    await check_history(sdk, session)


def custom_result(call: str, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content}


async def test_interrupt_and_reconnect(sdk: Sdk) -> None:
    """Steps 13, 14: interrupt and message in one send; a dropped stream is made up for by list and tail."""
    session = await open_session(sdk)
    known: dict[str, Any] = {}
    async with await sdk.beta.sessions.events.stream(
        session, event_deltas=["agent.message"]
    ) as stream:
        await send(sdk, session, user_message("[[slow: 300x0.1 tick]]"))
        seen = await until(stream, "event_delta")
        known |= {e.id: e for e in seen if not e.type.startswith("event_")}
    await send(sdk, session, {"type": "user.interrupt"}, user_message("[[bash: echo on]]"))
    async with await sdk.beta.sessions.events.stream(session) as stream:
        known |= {e.id: e for e in await history(sdk, session) if e.processed_at is not None}
        while types_of(list(known.values())).count("session.status_idle") < 2:
            seen = await until(stream, "session.status_idle")
            known |= {event.id: event for event in seen}
    complete = await history(sdk, session)
    assert sorted(known) == sorted(e.id for e in complete), "no gap and nothing twice"
    ends = [e.stop_reason.type for e in complete if e.type == "session.status_idle"]
    assert ends == ["end_turn", "end_turn"]
    await check_history(sdk, session)


async def test_archive_and_delete(sdk: Sdk) -> None:
    """Steps 18 and 19: not while running; archived sessions are read only; a deleted one ends its streams."""
    session = await open_session(sdk)
    async with await sdk.beta.sessions.events.stream(
        session, event_deltas=["agent.message"]
    ) as stream:
        await send(sdk, session, user_message("[[slow: 300x0.1 tick]]"))
        await until(stream, "event_delta")
        with pytest.raises(anthropic.BadRequestError):
            await sdk.beta.sessions.archive(session)
        with pytest.raises(anthropic.BadRequestError):
            await sdk.beta.sessions.delete(session)
        await send(sdk, session, {"type": "user.interrupt"})
        await until(stream, "session.status_idle")
        archived = await sdk.beta.sessions.archive(session)
        await until(stream, "session.status_terminated")
    assert (archived.status, archived.archived_at is None) == ("terminated", False)
    with pytest.raises(anthropic.ConflictError):
        await send(sdk, session, user_message("too late"))
    assert types_of(await history(sdk, session))[-1] == "session.status_terminated"

    other = await open_session(sdk)
    async with await sdk.beta.sessions.events.stream(other) as stream:
        deleted = await sdk.beta.sessions.delete(other)
        async with patience():
            seen = [event async for event in stream]
    assert (deleted.id, deleted.type) == (other, "session_deleted")
    assert types_of(seen) == ["session.deleted"]
    with pytest.raises(anthropic.NotFoundError):
        await sdk.beta.sessions.retrieve(other)


async def test_tool_runner(sdk: Sdk) -> None:
    """Step 23: the SDK's runner serves one custom tool until the session is idle."""

    @beta_async_tool
    async def lookup(word: str) -> str:
        """Looks a word up.

        Args:
            word: The word.
        """
        return f"{word}!"

    session = await open_session(sdk, LOOKUP)
    script = '[[tool: lookup {"word": "hey"}]]'
    await send(sdk, session, user_message(script))
    async with patience():
        runner = sdk.beta.sessions.events.tool_runner(session, tools=[lookup], max_idle=0.3)
        calls = [(call.name, call.posted, call.is_error) async for call in runner]
    assert calls == [("lookup", True, False)]
    assert text_of(await check_history(sdk, session)) == "The tool answered:\nhey!"


async def test_restart_and_silence(gateway: DemoGateway, tmp_path: Path) -> None:
    """Steps 21, 22: a pending call survives a restart; a silent turn outlasts the client's read time-out."""
    settings = make_settings(
        tmp_path, gateway.url, http={"heartbeat_seconds": 0.3}, child={"drain_seconds": 1.0}
    )
    async with sidecar_for(settings) as sidecar, make_client(sidecar, is_strict=True) as sdk:
        session = await open_session(sdk, TOOLSET, LOOKUP)
        async with await sdk.beta.sessions.events.stream(session) as stream:
            await send(sdk, session, user_message('[[tool: lookup {"word": "a"}]]'))
            (call,) = (await until(stream, "session.status_idle"))[-1].stop_reason.event_ids
        before = await history(sdk, session)
    async with sidecar_for(settings) as sidecar, make_client(sidecar, is_strict=True) as sdk:
        after = await history(sdk, session)
        assert [e.model_dump() for e in after] == [e.model_dump() for e in before]
        patient = sdk.with_options(timeout=6)
        async with await patient.beta.sessions.events.stream(session) as stream:
            await send(sdk, session, custom_result(call, "alpha"))
            turn = await until(stream, "session.status_idle")
            assert "alpha" in text_of(turn)
            await send(sdk, session, user_message("[[bash: sleep 8]][[then]][[say: awake]]"))
            turn = await until(stream, "session.status_idle")
        assert text_of(turn) == "awake"
        await check_history(sdk, session)
