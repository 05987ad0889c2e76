"""Sessions that are ended while something waits or runs in them, and prompts that are not wanted any more."""

import asyncio
from typing import Any

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.harness import text_of, types_of, user_message
from tests.raw_client import RawClient, plain
from tests.waiting import patience, until

ASKING = {
    "type": "agent_toolset_20260401",
    "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
}


async def waiting(raw: RawClient, text: str = "[[bash: echo never]]") -> tuple[str, str]:
    """Return a session that waits for a confirmation, and the call."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        await raw.send(session, text)
        events = await reader.until("session.status_idle")
    (call,) = events[-1]["stop_reason"]["event_ids"]
    return session, call


async def no_directory_is_in_use(sidecar: RunningSidecar) -> None:
    """Wait until no directory is in use."""
    await until(lambda: not sidecar.instances.busy())


async def test_an_archived_session_that_waited_stays_ended(
    sidecar: RunningSidecar, raw: RawClient
) -> None:
    """The call is closed with an error, the queued message is never run, and nothing follows the end."""
    session, call = await waiting(raw)
    await raw.send(session, "[[say: never]]")
    async with raw.stream(session) as reader:
        archived = await raw.call("POST", f"/v1/sessions/{session}/archive")
        await reader.until("session.status_terminated")
    assert (archived["status"], archived["archived_at"] is not None) == ("terminated", True)
    await no_directory_is_in_use(sidecar)
    events = await raw.events(session)
    done = [event for event in events if event["processed_at"] is not None]
    assert types_of(done)[-3:] == [
        "agent.tool_result",
        "session.thread_status_terminated",
        "session.status_terminated",
    ]
    assert (done[-3]["tool_use_id"], done[-3]["is_error"]) == (call, True)
    assert types_of(events)[len(done) :] == ["user.message"]
    assert await raw.status(session) == "terminated"


async def test_a_stream_of_an_archived_session_ends(raw: RawClient) -> None:
    """There is nothing to wait for: the server closes it."""
    session = await raw.new_session()
    await raw.turn(session, "[[say: done]]")
    await raw.call("POST", f"/v1/sessions/{session}/archive")
    async with patience(), raw.http.get(f"/v1/sessions/{session}/events/stream") as stream:
        await stream.read()


async def test_a_deleted_session_that_waited_leaves_nothing(
    sidecar: RunningSidecar, raw: RawClient
) -> None:
    """Its turn ends in opencode too, and its directory can be unloaded."""
    session, _ = await waiting(raw)
    assert sidecar.instances.busy() > 0
    await raw.call("DELETE", f"/v1/sessions/{session}")
    await no_directory_is_in_use(sidecar)
    async with raw.http.get(f"/v1/sessions/{session}") as response:
        assert response.status == 404


async def test_sending_to_a_session_that_is_being_deleted(raw: RawClient) -> None:
    """Either it is accepted, and then the delete is refused, or it is a 404; never a server error."""
    for _ in range(10):
        session = await raw.new_session()
        path = f"/v1/sessions/{session}"

        async def status_of(method: str, path: str, body: Any = None) -> int:
            async with raw.http.request(method, path, json=body) as response:
                return response.status

        events = {"events": [user_message("[[slow: 30x0.1 x]]")]}
        sent, deleted, changed = await asyncio.gather(
            status_of("POST", f"{path}/events", events),
            status_of("DELETE", path),
            status_of("POST", path, {"title": "t"}),
        )
        assert (sent, deleted) in {(200, 400), (404, 200)}
        assert changed in {200, 404}


async def test_a_call_is_not_confirmed_again_while_an_interrupt_is_under_way(
    raw: RawClient,
) -> None:
    """The first word counts."""
    session, call = await waiting(raw)
    allow = {"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"}
    path = f"/v1/sessions/{session}/events"

    async def send(event: dict[str, Any]) -> int:
        async with raw.http.post(path, json={"events": [event]}) as response:
            return response.status

    async with raw.stream(session) as reader:
        statuses = await asyncio.gather(
            send({"type": "user.interrupt"}), *(send(allow) for _ in range(4))
        )
        await reader.until("session.status_idle", count=2)  # the first is the one that waited
    assert statuses[0] == 200
    assert sorted(statuses[1:])[1:] == [400, 400, 400]
    check_events(await raw.events(session))


async def test_a_prompt_that_is_interrupted_in_its_own_request_is_never_sent(
    raw: RawClient, gateway: DemoGateway
) -> None:
    """No model request, no tool; what follows in the same request is a turn of its own."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send_events(
            session,
            user_message(f"[[bash: touch made-by-a-stopped-turn]] {session}"),
            {"type": "user.interrupt"},
            user_message(f"[[bash: ls]] [[then]] [[say: seen]] {session}"),
        )
        first = await reader.until("session.status_idle")
        second = await reader.until("session.status_idle")
    assert "span.model_request_start" not in types_of(first)
    assert first[-1]["stop_reason"] == {"type": "end_turn"}
    (result,) = plain(second, "agent.tool_result")
    assert "made-by-a-stopped-turn" not in result["content"][0]["text"]
    assert text_of(second) == "seen"
    assert len([r for r in gateway.requests if session in str(r.body)]) == 2, "of the second turn"


async def test_a_tool_that_ran_before_the_abort_is_shown(
    raw: RawClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The interrupt comes as soon as the call has left its trace on disk: the log has it with a result."""
    session = await raw.new_session()
    trace = f"shared*/**/workspaces/{session}/trace"
    async with raw.stream(session) as reader:
        await raw.send(session, "[[bash: touch trace]] [[then]] [[slow: 50x0.1 s]]")
        await until(lambda: list(tmp_path_factory.getbasetemp().glob(trace)))
        await raw.interrupt(session)
        events = await reader.until("session.status_idle")
        after = await raw.turn(session, "[[bash: ls]]")
    check_events(await raw.events(session))
    (listing,) = plain(after, "agent.tool_result")
    assert "trace" in listing["content"][0]["text"]
    assert plain(events, "agent.tool_use")
    assert plain(events, "agent.tool_result")


async def test_initial_events_come_with_the_session_or_not_at_all(raw: RawClient) -> None:
    """Events that the model cannot take: 400 that names `initial_events`, and no session."""
    agent = await raw.call("POST", "/v1/agents", {"name": "a", "model": "ollama/qwen3:8b"})
    place = await raw.call("POST", "/v1/environments", {"name": "e"})
    image = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    event = {"type": "user.message", "content": [{"type": "image", "source": image}]}
    body = {"agent": agent["id"], "environment_id": place["id"], "initial_events": [event]}
    async with raw.http.post("/v1/sessions", json=body) as response:
        answer = await response.json()
    assert response.status == 400
    assert "initial_events.0.content.0" in answer["error"]["message"]
    listed = await raw.call("GET", f"/v1/sessions?agent_id={agent['id']}")
    assert listed["data"] == []
