"""What goes wrong in the middle of a turn, and what the client sees."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.harness import (
    HELD_CALL,
    http_client,
    make_settings,
    release,
    sidecar_for,
    text_of,
    types_of,
    user_message,
)
from tests.raw_client import RawClient, plain
from tests.waiting import PATIENCE_SECONDS, until

ENDINGS = ["session.thread_status_idle", "session.usage", "session.status_idle"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
async def own(gateway: DemoGateway, root: Path) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        root,
        gateway.url,
        turn={"retry_notice_seconds": 0.0, "max_queued_messages": 4},
        child={"restart_first_delay_seconds": 0.2, "drain_seconds": 2.0},
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture
async def raw(own: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(own.url) as http:
        yield RawClient(http)


def check_log(events: list[dict[str, object]]) -> None:
    """Whatever happened: every request has one end, every call one result, times grow, ids are unique."""
    starts = [e["id"] for e in plain(events, "span.model_request_start")]
    ends = [e["model_request_start_id"] for e in plain(events, "span.model_request_end")]
    assert sorted(ends) == sorted(starts)
    uses = [e["id"] for e in plain(events, "agent.tool_use")]
    results = [e["tool_use_id"] for e in plain(events, "agent.tool_result")]
    assert sorted(results) == sorted(uses)
    times = [e["processed_at"] for e in events]
    assert times == sorted(set(times))
    assert len({e["id"] for e in events}) == len(events)
    assert types_of(events)[-3:] == ENDINGS


async def test_a_killed_child_ends_the_turn_honestly_and_comes_back(
    own: RunningSidecar, raw: RawClient
) -> None:
    """SIGKILL in the middle of the text: session.error, one idle; then the same session goes on."""
    session = await raw.new_session()
    await raw.turn(session, "[[say: the word is marzipan]]")
    boot = own.supervisor.boot
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[slow: 200x0.1 tick]]")
        await reader.until("event_delta")
        assert own.supervisor.pid is not None
        os.kill(own.supervisor.pid, signal.SIGKILL)
        ending = await reader.until("session.status_idle")
    error = plain(ending, "session.error")
    assert len(error) == 1
    assert error[0]["error"]["type"] == "unknown_error"
    assert error[0]["error"]["retry_status"] == {"type": "exhausted"}
    assert "opencode" in error[0]["error"]["message"]
    assert ending[-1]["stop_reason"] == {"type": "retries_exhausted"}

    turn = await raw.turn(session, "[[say: I am back]]")
    assert text_of(turn) == "I am back"
    assert own.supervisor.boot == boot + 1
    check_log(await raw.events(session))


async def test_the_conversation_survives_the_child(
    own: RunningSidecar, raw: RawClient, gateway: DemoGateway
) -> None:
    """After a restart of the child the model still gets what was said before it."""
    session = await raw.new_session()
    await raw.turn(session, "[[say: the word is quince]]")
    await own.supervisor.wait_ready(PATIENCE_SECONDS)
    boot = own.supervisor.boot
    own.supervisor.request_restart("a test", force=True)
    await until(lambda: own.supervisor.boot != boot)
    turn = await raw.turn(session, "[[say: still here]]")
    assert text_of(turn) == "still here"
    assert own.supervisor.boot == boot + 1
    last = next(r for r in reversed(gateway.requests) if r.path.endswith("/chat/completions"))
    assert "the word is quince" in str(last.body["messages"])


async def test_a_killed_child_takes_running_tools_with_it(
    own: RunningSidecar, raw: RawClient
) -> None:
    """A turn in bash when the child dies: the call gets an error result before the session's error."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send(session, "[[bash: sleep 60]]")
        await reader.until("agent.tool_use")
        await own.supervisor.wait_ready(PATIENCE_SECONDS)
        assert own.supervisor.pid is not None
        os.kill(own.supervisor.pid, signal.SIGKILL)
        ending = await reader.until("session.status_idle")
    assert plain(ending, "agent.tool_result")[0]["is_error"] is True
    assert types_of(ending).index("agent.tool_result") < types_of(ending).index("session.error")
    check_log(await raw.events(session))


async def test_a_message_sent_while_the_child_restarts_is_served_later(
    own: RunningSidecar, raw: RawClient
) -> None:
    """Between two boots a prompt is accepted at once, waits, and is answered by the next boot."""
    session = await raw.new_session()
    other = await raw.new_session()
    await own.supervisor.wait_ready(PATIENCE_SECONDS)
    assert own.supervisor.pid is not None
    os.kill(own.supervisor.pid, signal.SIGKILL)
    async with raw.stream(session) as reader:
        await raw.send(session, "[[say: you waited for me]]")
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "you waited for me"
    assert "session.error" not in types_of(turn)
    assert text_of(await raw.turn(other, "[[say: me too]]")) == "me too"


async def test_a_message_that_meets_a_dying_child_is_served_by_the_next_boot(
    own: RunningSidecar, raw: RawClient
) -> None:
    """Killed before, while and after a message is passed on: an error at most where work may have begun."""
    session = await raw.new_session()
    await raw.turn(session, "[[say: loaded]]")
    for number, pause in enumerate((0.0, 0.0, 0.01)):
        await own.supervisor.wait_ready(PATIENCE_SECONDS)
        assert own.supervisor.pid is not None
        async with raw.stream(session) as reader:
            if number == 0:
                os.kill(own.supervisor.pid, signal.SIGKILL)
                await raw.send(session, f"[[say: answer {number}]]")
            else:
                await raw.send(session, f"[[say: answer {number}]]")
                await asyncio.sleep(pause)
                os.kill(own.supervisor.pid, signal.SIGKILL)
            turn = await reader.until("session.status_idle")
        if "session.error" in types_of(turn):
            assert number > 0, "opencode was dead before it was asked"
        else:
            assert text_of(turn) == f"answer {number}"
    check_log(await raw.events(session))


async def test_a_retried_429_is_shown_as_rescheduled_and_not_as_an_error(raw: RawClient) -> None:
    """The gateway says 429 once, opencode waits, the turn goes on: rescheduled, running, text."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[error: 429 x1]] [[say: got through]]")
    types = types_of(turn)
    assert text_of(turn) == "got through"
    assert "session.error" not in types
    after = types[types.index("session.status_rescheduled") :]
    assert after[2:5] == [
        "session.status_running",
        "session.thread_status_running",
        "span.model_request_start",
    ]
    assert turn[-1]["stop_reason"] == {"type": "end_turn"}
    ends = [e["is_error"] for e in plain(turn, "span.model_request_end")]
    assert ends == [True, False]
    check_log(turn)


@pytest.mark.parametrize("status", [400, 401, 402])
async def test_an_error_that_no_retry_heals_ends_the_turn(raw: RawClient, status: int) -> None:
    """The gateway refuses: one session.error that names the status, then idle, and the session lives."""
    session = await raw.new_session()
    turn = await raw.turn(session, f"[[error: {status}]]")
    (error,) = plain(turn, "session.error")
    assert error["error"]["type"] in {"model_request_failed_error", "billing_error"}
    assert error["error"]["message"]
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    check_log(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def test_endless_500s_can_be_interrupted(raw: RawClient) -> None:
    """While opencode retries a gateway that always fails, an interrupt ends the turn at once."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send(session, "[[error: 500]]")
        await reader.until("session.status_rescheduled")
        await raw.interrupt(session)
        ending = await reader.until("session.status_idle")
    assert ending[-1]["stop_reason"] == {"type": "end_turn"}
    assert len(plain(ending, "user.interrupt")) == 1
    check_log(await raw.events(session))
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def test_a_page_where_a_stream_was_asked_is_retried_and_told(raw: RawClient) -> None:
    """A gateway that answers a streaming call with HTML: rescheduled while opencode retries, no hang."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send(session, "[[page]]")
        await reader.until("session.status_rescheduled", count=2)
        assert await raw.status(session) in {"rescheduling", "running"}
        await raw.interrupt(session)
        await reader.until("session.status_idle")
    turn = reader.seen
    assert not plain(turn, "agent.message")
    assert all(end["is_error"] is not False for end in plain(turn, "span.model_request_end"))
    check_log(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def test_a_refusal_is_a_stop_reason(raw: RawClient) -> None:
    """The model refuses: idle says so, nothing is an error."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[refuse]]")
    assert turn[-1]["stop_reason"] == {"type": "refusal"}
    assert "session.error" not in types_of(turn)


async def test_an_interrupt_in_the_text_ends_the_turn(raw: RawClient) -> None:
    """Interrupted while the model writes: no message for the cut part, one echo, end_turn."""
    session = await raw.new_session()
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[slow: 300x0.1 tick]]")
        await reader.until("event_delta")
        (accepted,) = await raw.interrupt(session)
        ending = await reader.until("session.status_idle")
    assert accepted["processed_at"] is None
    (echo,) = plain(ending, "user.interrupt")
    assert echo["id"] == accepted["id"]
    assert not plain(ending, "agent.message")
    assert ending[-1]["stop_reason"] == {"type": "end_turn"}
    assert plain(ending, "span.model_request_end")[0]["is_error"] is None
    check_log(await raw.events(session))
    assert text_of(await raw.turn(session, "[[say: next]]")) == "next"


async def test_an_interrupt_in_a_tool_stops_the_tool(raw: RawClient) -> None:
    """Interrupted while bash runs: an error result, the echo, end_turn; and no second idle later."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send(session, "[[bash: sleep 120]]")
        await reader.until("agent.tool_use")
        await raw.interrupt(session)
        ending = await reader.until("session.status_idle")
        types = types_of(ending)
        assert types.index("agent.tool_result") < types.index("user.interrupt")
        assert plain(ending, "agent.tool_result")[0]["is_error"] is True
        await raw.send(session, "[[say: next]]")
        after = await reader.until("session.status_idle")
    assert text_of(after) == "next"
    assert types_of(after)[0] == "user.message"
    check_log(await raw.events(session))


async def test_interrupt_and_message_in_one_request(raw: RawClient) -> None:
    """`user.interrupt` followed by `user.message` cuts the turn and then runs the message."""
    session = await raw.new_session()
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[slow: 300x0.1 tick]]")
        await reader.until("event_delta")
        await raw.send_events(session, {"type": "user.interrupt"}, user_message("[[say: instead]]"))
        await reader.until("session.status_idle")
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "instead"


async def test_an_interrupt_of_an_idle_session_changes_nothing(raw: RawClient) -> None:
    """It is accepted, starts no turn, and the next message runs as always."""
    session = await raw.new_session()
    await raw.interrupt(session)
    assert await raw.status(session) == "idle"
    assert types_of(await raw.events(session)) == ["user.interrupt"]
    assert text_of(await raw.turn(session, "[[say: fine]]")) == "fine"


async def test_messages_sent_to_a_busy_session_run_in_order(raw: RawClient, root: Path) -> None:
    """Three messages behind a running turn: each gets its own turn, in the order sent, none is lost."""
    session = await raw.new_session()
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, f"{HELD_CALL} [[then]] [[say: first]]")
        await reader.until("agent.tool_use")
        queued = await raw.send(session, "[[say: second]]", "[[say: third]]")
        queued += await raw.send(session, "[[say: fourth]]")
        assert [event["processed_at"] for event in queued] == [None] * 3
        waiting = [e["id"] for e in await raw.events(session) if e["processed_at"] is None]
        assert waiting == [event["id"] for event in queued]
        release(root / "workspaces" / session)
        await reader.until("session.status_idle", count=4)
    events = await raw.events(session)
    said = [e["content"][0]["text"].strip() for e in plain(events, "agent.message")]
    assert said == ["first", "second", "third", "fourth"]
    echoed = [event["id"] for event in plain(events, "user.message")]
    assert echoed[1:] == [event["id"] for event in queued]
    check_log(events)


async def test_a_full_queue_is_refused_as_a_whole(raw: RawClient) -> None:
    """More messages than may wait: 429 with retry-after, none of them accepted; interrupts pass."""
    session = await raw.new_session()
    async with raw.stream(session) as reader:
        await raw.send(session, "[[hang]]")
        await raw.send(session, "[[say: 1]]", "[[say: 2]]", "[[say: 3]]")
        body = {"events": [user_message("[[say: 4]]"), user_message("[[say: 5]]")]}
        path = f"/v1/sessions/{session}/events"
        async with raw.http.post(path, json=body) as response:
            assert response.status == 429, await response.text()
            assert int(response.headers["retry-after"]) >= 1
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        await raw.send(session, "[[say: 4]]")
        assert sum(e["processed_at"] is None for e in await raw.events(session)) == 4
        await raw.interrupt(session)
        await reader.until("session.status_idle", count=5)
    said = [e["content"][0]["text"] for e in plain(await raw.events(session), "agent.message")]
    assert said == ["1", "2", "3", "4"]


@pytest.mark.parametrize("count", [2, 8])
async def test_sessions_run_beside_each_other(raw: RawClient, count: int) -> None:
    """Concurrent sessions each get their own answer, tools and directory, and nothing of the others."""
    sessions = [await raw.new_session() for _ in range(count)]

    async def one(number: int, session: str) -> list[dict[str, object]]:
        text = f"[[bash: echo mine-{number} > f; cat f; ls]] [[then]] [[slow: 5x0.1 s{number}-]]"
        return await raw.turn(session, text, seconds=120)

    turns = await asyncio.gather(*(one(n, s) for n, s in enumerate(sessions)))
    for number, turn in enumerate(turns):
        (result,) = plain(turn, "agent.tool_result")
        assert result["content"][0]["text"].split() == [f"mine-{number}", "f"]
        assert text_of(turn).split() == [f"s{number}-{n}" for n in range(1, 6)]
        check_log(turn)


@pytest.mark.parametrize("pause", [None, 0.0, 0.01, 0.03, 0.06, 0.1])
async def test_an_interrupt_may_come_at_once(raw: RawClient, pause: float | None) -> None:
    """In the same request or just after: one running, one interrupt, one idle, and the session goes on.

    opencode forgets an abort that comes before it has begun, and one that comes while it loads a directory
    leaves that directory broken.
    """
    session = await raw.new_session()
    message, interrupt = user_message("[[slow: 200x0.1 word]]"), {"type": "user.interrupt"}
    async with raw.stream(session) as stream:
        if pause is None:
            await raw.send_events(session, message, interrupt)
        else:
            await raw.send_events(session, message)
            await asyncio.sleep(pause)
            await raw.send_events(session, interrupt)
        seen = await stream.until("session.status_idle")
    after = await raw.turn(session, "[[say: fine]]")

    assert types_of(seen).count("user.interrupt") == 1
    assert seen[-1]["stop_reason"] == {"type": "end_turn"}
    assert "agent.message" not in types_of(seen)
    assert text_of(after) == "fine"
