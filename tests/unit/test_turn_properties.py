"""Random but legal event sequences of opencode through the translator: what holds for all of them.

The grammar is that of tests/recordings/opencode/README.md: steps with reasoning, text and tool parts, tools
that finish in any order, text that ends after the call began, asks, retries before and after half a text,
refusals, aborts anywhere, duplicated frames and idles. The relay's news come from another socket: they
keep their own order, never come after what they caused, and may be ahead of the child by whole requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from sidecar.managed.drafts import OpenTool, Output, Usage
from sidecar.managed.tools import ToolPlan, expand
from sidecar.managed.translate import TurnTranslator
from sidecar.wire.managed import AgentCreate
from tests.event_books import check_events

PROMPT, SESSION = "msg_prompt", "ses_1"
KINDS = {"allow": "read", "ask": "bash", "custom": "custom_lookup", "mcp": "hub_find"}
TEXT = st.text("ab \u00e4\u6994\n", max_size=12)

Event = dict[str, Any]
News = tuple[str, Any]
"""One arrival: ("child", (type, properties)), ("started", id) or ("ended", (id, is_error))."""


def make_plan() -> ToolPlan:
    bash = {"name": "bash", "permission_policy": {"type": "always_ask"}}
    allowed = {"permission_policy": {"type": "always_allow"}}
    schema = {"type": "object"}
    tools = [
        {"type": "agent_toolset_20260401", "configs": [bash]},
        {"type": "mcp_toolset", "mcp_server_name": "hub", "default_config": allowed},
        {"type": "custom", "name": "lookup", "description": "d", "input_schema": schema},
    ]
    servers = [{"type": "url", "name": "hub", "url": "http://hub"}]
    body = {"name": "a", "model": "m", "tools": tools, "mcp_servers": servers}
    agent = AgentCreate.model_validate(body)
    return ToolPlan(expand(agent.tools, agent.mcp_servers), servers)


@dataclass
class Script:
    """What the child and the relay say, each in its own order, and which requests a step needs."""

    child: list[tuple[str, Event]] = field(default_factory=list)
    relay: list[News] = field(default_factory=list)
    needs: list[int] = field(default_factory=list)
    """For each event of the child, how many of the relay's news come before it at least."""
    texts: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def say(self, type_: str, **properties: Any) -> None:
        self.child.append((type_, {"sessionID": SESSION, **properties}))
        self.needs.append(len([n for n in self.relay if n[0] == "started"]))

    def part(self, message: str, kind: str, part_id: str, **fields: Any) -> None:
        part = {"id": part_id, "messageID": message, "type": kind, **fields}
        self.say("message.part.updated", part=part)

    def status(self, kind: str, **fields: Any) -> None:
        self.say("session.status", status={"type": kind, **fields})

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self.ids)}"


class Teller:
    """Draws one turn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.script = Script()

    def turn(self) -> Script:
        script = self.script
        script.say("message.updated", info={"id": PROMPT, "role": "user"})
        script.part(PROMPT, "text", script.new("prt"), text="the prompt")
        script.status("busy")
        for _ in range(self.draw(st.integers(0, 3))):
            self.step(tools=self.draw(st.integers(1, 3)))
        if self.draw(st.booleans()):
            self.step(tools=0)
        else:
            self.error()
        for _ in range(self.draw(st.integers(1, 2))):
            script.status("idle")
        return script

    def step(self, *, tools: int) -> None:
        script, draw = self.script, self.draw
        message = script.new("msg")
        info = {"id": message, "role": "assistant", "parentID": PROMPT}
        script.say("message.updated", info=info)
        for _ in range(draw(st.integers(0, 2))):
            self.failed_attempt(message)
        request = self.request()
        script.part(message, "step-start", script.new("prt"))
        if draw(st.booleans()):
            self.text(message, "reasoning")
        is_late = bool(tools) and draw(st.booleans())
        end = self.text(message, "text", is_open=is_late) if draw(st.booleans()) else None
        self.calls(message, tools, end, request)
        script.part(message, "step-finish", script.new("prt"), reason="stop", tokens={"input": 3})
        done = {**info, "time": {"completed": 1}}
        script.say("message.updated", info=done)
        script.say("message.updated", info=done)

    def request(self) -> str:
        request = self.script.new("req")
        self.script.relay.append(("started", request))
        return request

    def failed_attempt(self, message: str) -> None:
        script = self.script
        request = self.request()
        if self.draw(st.booleans()):
            script.part(message, "step-start", script.new("prt"))
            self.text(message, "text", is_void=True)
        script.relay.append(("ended", (request, True)))
        script.status("retry", next=0)

    def text(
        self, message: str, kind: str, *, is_open: bool = False, is_void: bool = False
    ) -> Event | None:
        """Tell a text; return its last frame when that is still to come."""
        script = self.script
        part_id = script.new("prt")
        script.part(message, kind, part_id, text="", time={"start": 1})
        deltas = self.draw(st.lists(TEXT, max_size=4))
        for delta in deltas:
            where = {"messageID": message, "partID": part_id, "field": "text", "delta": delta}
            script.say("message.part.delta", **where)
        if is_void:
            return None
        whole = "".join(deltas)
        whole = whole.rstrip() if kind == "text" else f"secret {whole}"
        if kind == "text" and whole.strip():
            script.texts.append(whole)
        last = {"id": part_id, "messageID": message, "type": kind, "text": whole}
        last["time"] = {"start": 1, "end": 2}
        if is_open:
            return last
        script.say("message.part.updated", part=last)
        return None

    def calls(self, message: str, count: int, text_end: Event | None, request: str) -> None:
        script, draw = self.script, self.draw
        calls = []
        for _ in range(count):
            kind = draw(st.sampled_from(sorted(KINDS)))
            call, part_id = script.new("call"), script.new("prt")
            tool = {"callID": call, "tool": KINDS[kind]}
            pending = {"status": "pending", "input": {}}
            script.part(message, "tool", part_id, state=pending, **tool)
            if kind == "ask":
                asked = {"id": script.new("per"), "tool": {"messageID": message, "callID": call}}
                script.say("permission.asked", permission="bash", **asked)
            state = {"status": "running", "input": {"command": call}}
            for _ in range(draw(st.integers(1, 3))):
                script.part(message, "tool", part_id, state=state, **tool)
            calls.append((part_id, tool, state))
        if text_end is not None:
            script.say("message.part.updated", part=text_end)
        script.relay.append(("ended", (request, draw(st.sampled_from([False, False, None])))))
        for part_id, tool, state in draw(st.permutations(calls)):
            has_failed = draw(st.booleans())
            ended = {"status": "error", "error": "no"} if has_failed else {"status": "completed"}
            script.part(message, "tool", part_id, state={**state, "output": "o", **ended}, **tool)

    def error(self) -> None:
        script = self.script
        message, request = script.new("msg"), self.request()
        info = {"id": message, "role": "assistant", "parentID": PROMPT}
        script.say("message.updated", info=info)
        name = self.draw(st.sampled_from(["APIError", "ContentFilterError", "UnknownError"]))
        script.relay.append(("ended", (request, name != "ContentFilterError")))
        script.say("session.error", error={"name": name, "data": {}})


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[News], Script]:
    """Draw a turn and how its two streams are merged; perhaps cut, perhaps with frames doubled."""
    script = Teller(draw).turn()
    relay = list(script.relay)
    news: list[News] = []
    started = 0
    lead = draw(st.integers(0, 2))
    for (type_, properties), needed in zip(script.child, script.needs, strict=True):
        ahead = draw(st.integers(0, 6)) if lead else 0
        while relay and (started < needed or ahead):
            ahead = max(0, ahead - 1)
            started += relay[0][0] == "started"
            news.append(relay.pop(0))
        news.append(("child", (type_, properties)))
        if type_ != "message.part.delta" and draw(st.integers(0, 9)) == 0:
            news.append(news[-1])
    news += relay
    if draw(st.integers(0, 3)) == 0:
        news = news[: draw(st.integers(0, len(news)))]
    return news, script


class Reader:
    """Plays turn and client around a translator, and writes the log."""

    def __init__(self) -> None:
        self.translator = TurnTranslator(plan=make_plan(), message_id=PROMPT)
        self.log: list[Event] = []
        self.previews: list[Any] = []
        self.used: list[Usage] = []
        self.write("session.status_running")
        self.write("user.message")

    def write(self, type_: str, fields: Any = (), id_: str | None = None) -> None:
        number = len(self.log)
        event = {"id": id_ or f"own_{number}", "type": type_, "processed_at": f"{number:06}"}
        self.log.append({**event, **dict(fields)})

    def take(self, out: Output) -> None:
        for draft in out.drafts:
            self.write(draft.type, draft.fields, draft.id)
        self.previews += out.previews
        self.used += out.used

    def see(self, kind: str, what: Any) -> bool:
        """Take one arrival; return whether the turn is over."""
        translator = self.translator
        if kind == "started":
            self.take(translator.request_started(what))
        elif kind == "ended":
            request, is_error = what
            usage = Usage(input_tokens=1)
            self.take(translator.request_ended(request, is_error=is_error, usage=usage))
        else:
            type_, properties = what
            part = properties.get("part", {})
            if part.get("type") == "tool" and part["state"]["status"] in {"completed", "error"}:
                self.answer(translator.open_tools.get(part["callID"]))
            if type_ == "session.status":
                return translator.is_armed and properties["status"]["type"] == "idle"
            self.take(translator.child_event(type_, properties))
        return False

    def answer(self, tool: OpenTool | None) -> None:
        """A call that needs the client goes on only when the client has answered what it was shown."""
        if tool is None or not tool.needs_client or tool.is_confirmed:
            return
        self.take(self.translator.pause())
        tool.is_confirmed = True
        if tool.call.kind == "custom":
            self.write("user.custom_tool_result", {"custom_tool_use_id": tool.event_id})
        else:
            self.write("user.tool_confirmation", {"tool_use_id": tool.event_id})

    def end(self) -> None:
        self.take(self.translator.settle())
        for type_ in ("session.thread_status_idle", "session.usage"):
            self.write(type_)
        self.write("session.status_idle", {"stop_reason": {"type": "end_turn"}})


def read(news: list[News]) -> tuple[Reader, bool]:
    reader = Reader()
    for kind, what in news:
        if reader.see(kind, what):
            reader.end()
            return reader, True
    reader.end()
    return reader, False


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_the_books_balance_whatever_arrives(drawn: tuple[list[News], Script]) -> None:
    """Unique ids, every request one end, every call one result after its request, one terminal."""
    news, _ = drawn
    reader, _ = read(news)

    check_events(reader.log)
    announced = {e["id"] for e in reader.log if e["type"] == "span.model_request_start"}
    assert len(reader.used) == len(announced), "every request is counted once"


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_no_text_is_lost_or_leaked(drawn: tuple[list[News], Script]) -> None:
    """A turn that was told to its end shows every finished text once, in order, and no reasoning."""
    news, script = drawn
    reader, is_whole = read(news)
    shown = [e["content"][0]["text"] for e in reader.log if e["type"] == "agent.message"]

    if is_whole:
        assert shown == script.texts
    else:
        assert shown == script.texts[: len(shown)]
    assert "secret" not in json.dumps(reader.log)


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_previews_are_prefixes_of_what_follows(drawn: tuple[list[News], Script]) -> None:
    """A preview starts once, before its deltas, and never says more than the message of its id."""
    news, _ = drawn
    reader, _ = read(news)
    finals = {e["id"]: e["content"][0]["text"] for e in reader.log if e["type"] == "agent.message"}
    shown: dict[str, str] = {}
    for preview in reader.previews:
        if preview.type == "event_start":
            assert preview.event_id not in shown
            shown[preview.event_id] = ""
        else:
            shown[preview.event_id] += json.loads(preview.text)["delta"]["content"]["text"]
    for event_id, text in shown.items():
        if event_id in finals:
            assert finals[event_id].startswith(text)
    assert finals.keys() <= shown.keys(), "every message was announced"


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_every_call_of_the_child_is_shown_once(drawn: tuple[list[News], Script]) -> None:
    """Duplicated frames make no second call, and none is left out."""
    news, script = drawn
    reader, is_whole = read(news)
    uses = [e["input"]["command"] for e in reader.log if e["type"].endswith("tool_use")]
    made = {
        properties["part"]["callID"]
        for type_, properties in script.child
        if type_ == "message.part.updated" and properties["part"]["type"] == "tool"
    }

    assert len(uses) == len(set(uses))
    assert set(uses) == made if is_whole else set(uses) <= made
