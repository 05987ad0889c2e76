"""Random but legal turns through the whole engine: inbox, turn, actor, log and a real database.

Only the child is a fake: it says what hypothesis drew, and goes on after a call only when that call was
answered. A client reads the log and answers what waits for it; sometimes it interrupts instead.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import TypeAdapter

from sidecar.config import TurnSettings
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import Turns
from sidecar.managed.sessions.event_list import EventQuery
from sidecar.managed.sessions.table import insert_session
from sidecar.managed.turns.state import SessionRecord
from sidecar.model_requests import ModelRequestStarted, Usage
from sidecar.opencode.custom_tools import CustomTools
from sidecar.store.interface import Store
from sidecar.tracing import PassingTracer
from sidecar.wire.opencode_events import ChildEvent
from sidecar.wire.sessions import ClientEvent
from tests.event_books import check_events
from tests.event_lists import list_events
from tests.harness import types_of, user_message
from tests.stores import ENGINES, open_store
from tests.turn_scripts import CLIENT_TOOLS, PROMPT, News, Script, arrivals, ended, make_agent

EVENTS: TypeAdapter[ClientEvent] = TypeAdapter(ClientEvent)


class FakeChild:
    """Plays one turn; stands for `ChildSessions` and for the `ChildSession` it opens."""

    def __init__(self, news: list[News], custom_tools: CustomTools) -> None:
        self._news = news
        self._custom_tools = custom_tools
        self._answered: dict[str, asyncio.Event] = {}
        self._replies: dict[str, str] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        self.session_id = new_id("ses")
        self.turns: Turns | None = None
        self.position = 0
        self.prompt_wait_seconds = 1.0

    def on_lost(self, _callback: Any) -> None:
        """Losses are reported to the turn directly."""

    async def has_turns(self, **_excluded: Any) -> bool:
        return False

    async def prepare_directory(self, _record: SessionRecord) -> list[Any]:
        return []

    @asynccontextmanager
    async def open(
        self, record: SessionRecord, sink: Any, **_bounds: Any
    ) -> AsyncIterator[FakeChild]:
        self._record, self._sink = record, sink
        try:
            yield self
        finally:
            await self._stop()

    async def prompt(self, *, message_id: str, **_rest: Any) -> None:
        self._start(self._play(message_id))

    async def abort(self) -> None:
        await self._stop()
        self._say("session.status", {"status": {"type": "idle"}})

    async def is_busy(self) -> bool:
        return any(not task.done() for task in self._tasks)

    async def reply_permission(
        self, permission_id: str, reply: str, message: str | None = None
    ) -> None:
        assert permission_id not in self._replies, "a question is answered once"
        self._replies[permission_id] = reply
        self._answered.setdefault(permission_id, asyncio.Event()).set()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(job)
        self._tasks.append(task)
        return task

    def _say(self, type_: str, properties: Mapping[str, Any]) -> None:
        event = ChildEvent(type_, dict(properties), None, self.session_id, self.session_id)
        self._sink(event)

    async def _play(self, message_id: str) -> None:
        assert self.turns is not None
        asked: dict[str, str] = {}
        calls: dict[str, asyncio.Task[Any]] = {}
        running: list[asyncio.Task[None]] = []
        for kind, what in self._news:
            self.position += 1
            if kind == "started":
                self.turns.tell(self.session_id, ModelRequestStarted(what))
            elif kind == "ended":
                request, is_error = what
                self.turns.tell(self.session_id, ended(request, is_error=is_error))
            else:
                type_, given = what
                properties = json.loads(json.dumps(given).replace(PROMPT, message_id))
                if type_ == "permission.asked":
                    asked[properties["tool"]["callID"]] = properties["id"]
                answer = self._answer_of(properties.get("part") or {}, asked, calls)
                if answer is not None:
                    running.append(self._start(self._say_after(answer, type_, properties)))
                    continue
                await asyncio.gather(*running)
                self._say(type_, properties)
            if self.position % 3 == 0:
                await asyncio.sleep(0)

    async def _say_after(self, answer: Awaitable[Any], type_: str, properties: Any) -> None:
        await answer
        self._say(type_, properties)

    def _answer_of(
        self, part: Mapping[str, Any], asked: dict[str, str], calls: dict[str, asyncio.Task[Any]]
    ) -> Awaitable[Any] | None:
        """Return what a call's result waits for. Custom calls reach the tool server as they begin."""
        if part.get("type") != "tool" or part["tool"] not in CLIENT_TOOLS:
            return None
        call, state = part["callID"], part["state"]
        is_over = state["status"] in {"completed", "error"}
        if part["tool"] == "bash":
            reply = self._answered.setdefault(asked.get(call, ""), asyncio.Event())
            return self._start(reply.wait()) if is_over else None
        if state["status"] == "running" and call not in calls:
            name = part["tool"].removeprefix("custom_")
            waiting = self._custom_tools.call(self._record.id, name, state["input"])
            calls[call] = self._start(waiting)
        return calls[call] if is_over else None


class Client:
    """Reads the stream, and answers calls: an eager one when it sees them, else one at each idle."""

    def __init__(self, turns: Turns, log: EventLog, session_id: str, *, is_eager: bool) -> None:
        self._turns = turns
        self._is_eager = is_eager
        self._answered: set[str] = set()
        self._log = log
        self._session_id = session_id
        self.streamed: list[dict[str, Any]] = []

    async def send(self, *events: dict[str, Any]) -> None:
        await self._turns.send(self._session_id, [EVENTS.validate_python(e) for e in events])

    async def run(self, answers: list[str], interrupt: asyncio.Event) -> None:
        """Run the turn to its end."""
        uses: dict[str, str] = {}
        with self._log.subscribe(self._session_id, after=0) as reader:
            await self.send(user_message("go"))
            async with asyncio.timeout(3):
                async for frame in reader.frames(30):
                    event = json.loads(frame.split(b"data: ", 1)[1])
                    self.streamed.append(event)
                    uses[event["id"]] = event["type"]
                    if self._is_eager and _needs_client(event) and not interrupt.is_set():
                        await self.send(self._answer(event["id"], event["type"], answers))
                    if event["type"] != "session.status_idle":
                        continue
                    reason = event["stop_reason"]
                    if reason["type"] != "requires_action":
                        return
                    if interrupt.is_set():
                        await self.send({"type": "user.interrupt"})
                        continue
                    left = [i for i in reason["event_ids"] if i not in self._answered]
                    if left:
                        await self.send(self._answer(left[0], uses[left[0]], answers))

    def _answer(self, call: str, type_: str, answers: list[str]) -> dict[str, Any]:
        self._answered.add(call)
        if type_ == "agent.custom_tool_use":
            return {"type": "user.custom_tool_result", "custom_tool_use_id": call}
        answers.append(answers.pop(0))
        return {"type": "user.tool_confirmation", "tool_use_id": call, "result": answers[0]}


def _needs_client(event: Mapping[str, Any]) -> bool:
    return event["type"] == "agent.custom_tool_use" or event.get("evaluated_permission") == "ask"


@pytest.fixture(scope="module", params=ENGINES)
async def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    async with open_store(request, tmp_path_factory.mktemp("engine")) as opened:
        yield opened


async def new_session(database: Store) -> str:
    now = timestamps.now()
    agent = {"name": "a", "model": {"id": "m"}, "system": None, **make_agent()}
    record = SessionRecord(
        id=new_id("sesn"),
        agent_id=new_id("agent"),
        agent_version=1,
        environment_id=new_id("env"),
        thread_id=new_id("sthr"),
        model_ref="litellm/m",
        status="idle",
        created_at=now,
        updated_at=now,
        archived_at=None,
        last_seq=0,
        last_processed_us=0,
        child_session_id=None,
        usage=Usage(),
        active_us=0,
        turn=None,
        body={"agent": agent, "title": None, "metadata": {}, "resources": [], "vault_ids": []},
    )
    await database.write(lambda connection: insert_session(connection, record))
    return record.id


async def play(
    database: Store,
    news: list[News],
    answers: list[str],
    *,
    is_eager: bool,
    interrupt_at: int | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run one turn; return the events as listed and as streamed."""
    session_id = await new_session(database)
    log, custom_tools = EventLog(database=database), CustomTools()
    child: Any = FakeChild(copy.deepcopy(news), custom_tools)
    turns = Turns(
        database=database,
        log=log,
        child_sessions=child,
        custom_tools=custom_tools,
        modalities_of=lambda _model: None,
        settings=TurnSettings(retry_notice_seconds=0.0),
        tracer=PassingTracer(),
    )
    child.turns = turns
    client, interrupt = Client(turns, log, session_id, is_eager=is_eager), asyncio.Event()

    async def interrupt_then() -> None:
        while interrupt_at is not None and child.position < interrupt_at:
            await asyncio.sleep(0.005)
        if interrupt_at is not None:
            interrupt.set()
            await client.send({"type": "user.interrupt"})

    interrupting = asyncio.create_task(interrupt_then())
    try:
        await client.run(list(answers), interrupt)
    finally:
        interrupting.cancel()
        await asyncio.gather(interrupting, return_exceptions=True)
        await turns.drain(0.1)
    listed = (await list_events(database, session_id, EventQuery()))["data"]
    return listed, client.streamed


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arrivals(may_cut=False),
    st.permutations(["allow", "deny", "allow"]),
    st.booleans(),
    st.none() | st.integers(0, 40),
)
async def test_any_turn_ends_once_and_its_books_balance(
    database: Store,
    drawn: tuple[list[News], Script],
    answers: list[str],
    is_eager: bool,
    interrupt_at: int | None,
) -> None:
    """One terminal, unique ids, the list is the stream, every request ends, every call has one result."""
    news, script = drawn
    listed, streamed = await play(
        database, news, answers, is_eager=is_eager, interrupt_at=interrupt_at
    )

    done = [event for event in listed if event["id"] in {e["id"] for e in streamed}]
    assert done == streamed
    trailing = types_of(listed[len(streamed) :])
    assert set(trailing) <= {"user.interrupt"}, "an interrupt that came after the end"
    check_events(streamed)
    terminal = streamed[-1]["stop_reason"]["type"]
    assert terminal in {"end_turn", "refusal", "retries_exhausted"}
    if interrupt_at is None:
        texts = [e["content"][0]["text"] for e in streamed if e["type"] == "agent.message"]
        assert texts == script.texts
