"""Random but legal sequences of what opencode and the relay say in one turn, for hypothesis.

The grammar is that of tests/recordings/opencode/README.md: steps with reasoning, text and tool parts, tools
that finish in any order, text that ends after the call began, asks, retries before and after half a text,
refusals, errors, duplicated frames and idles. The relay's news come from another socket: they keep their
own order, never come after what they caused, and may be ahead of the child by whole requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st

from sidecar.managed.agents.toolsets import expand
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.model_requests import FailureKind, ModelRequestEnded, RequestFailure, Usage
from sidecar.wire.agents import AgentCreate

PROMPT, SESSION = "msg_prompt", "ses_1"
KINDS = {"allow": "read", "ask": "bash", "custom": "custom_lookup", "mcp": "hub_find"}
CLIENT_TOOLS = {KINDS["ask"], KINDS["custom"]}
TEXT = st.text("ab \u00e4\u6994\n", max_size=12)

Event = dict[str, Any]
News = tuple[str, Any]
"""One arrival: ("child", (type, properties)), ("started", id) or ("ended", (id, is_error))."""


def ended(request_id: str, *, is_error: bool | None) -> ModelRequestEnded:
    """Return the relay's report of a request that took one token; None for one that was cut."""
    kinds: dict[bool | None, FailureKind] = {True: "failed", None: "cancelled"}
    failure = None if is_error is False else RequestFailure(kinds[is_error], "no")
    return ModelRequestEnded(request_id, usage=Usage(input_tokens=1), failure=failure)


def new_ids() -> Callable[[], str]:
    """Return a maker of ids: event_1, event_2, ..."""
    numbers = itertools.count(1)
    return lambda: f"event_{next(numbers)}"


def make_agent() -> dict[str, Any]:
    """Return the `tools` and `mcp_servers` of the agent that the scripts are about."""
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
    return {"tools": expand(agent.tools), "mcp_servers": servers}


def make_plan() -> ToolPlan:
    """Return that agent's plan."""
    agent = make_agent()
    return ToolPlan(agent["tools"], agent["mcp_servers"])


@dataclass
class Script:
    """What the child and the relay say, each in its own order, and which requests a step needs."""

    child: list[tuple[str, Event]] = field(default_factory=list)
    relay: list[News] = field(default_factory=list)
    needs: list[int] = field(default_factory=list)
    """For each event of the child, how many of the relay's news come before it at least."""
    not_before: dict[str, int] = field(default_factory=dict)
    """For each request, how many of the child's events come before its start at least."""
    barrier: int = 0
    texts: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def say(self, type_: str, *, needs_all: bool = False, **properties: Any) -> None:
        self.child.append((type_, {"sessionID": SESSION, **properties}))
        starts = [n + 1 for n, (kind, _) in enumerate(self.relay) if kind == "started"]
        self.needs.append(len(self.relay) if needs_all else max(starts, default=0))

    def part(
        self, message: str, kind: str, part_id: str, *, needs_all: bool = False, **fields: Any
    ) -> None:
        part = {"id": part_id, "messageID": message, "type": kind, **fields}
        self.say("message.part.updated", needs_all=needs_all, part=part)

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
        self.script.not_before[request] = self.script.barrier
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
        # What needs no client goes on by itself while the client is waited for.
        order = draw(st.permutations(calls))
        for part_id, tool, state in sorted(order, key=lambda call: call[1]["tool"] in CLIENT_TOOLS):
            has_failed = draw(st.booleans())
            ended = {"status": "error", "error": "no"} if has_failed else {"status": "completed"}
            # The client answers what it was shown, and that is when the model has said it all.
            is_client = tool["tool"] in CLIENT_TOOLS
            done = {**state, "output": "o", **ended}
            script.part(message, "tool", part_id, needs_all=is_client, state=done, **tool)
            if is_client:
                script.barrier = len(script.child)

    def error(self) -> None:
        script = self.script
        message, request = script.new("msg"), self.request()
        info = {"id": message, "role": "assistant", "parentID": PROMPT}
        script.say("message.updated", info=info)
        name = self.draw(st.sampled_from(["APIError", "ContentFilterError", "UnknownError"]))
        script.relay.append(("ended", (request, name != "ContentFilterError")))
        script.say("session.error", error={"name": name, "data": {}})


@st.composite
def arrivals(draw: st.DrawFn, *, may_cut: bool = True) -> tuple[list[News], Script]:
    """Draw a turn and how its two streams are merged; perhaps cut, perhaps with frames doubled."""
    script = Teller(draw).turn()
    news: list[News] = []
    told = 0
    is_ahead = draw(st.booleans())

    def may_come(item: News, number: int) -> bool:
        return item[0] == "ended" or script.not_before[item[1]] <= number

    for number, (event, needed) in enumerate(zip(script.child, script.needs, strict=True)):
        wanted = told + draw(st.integers(0, 6)) if is_ahead else 0
        while told < len(script.relay) and told < max(needed, wanted):
            if not may_come(script.relay[told], number):
                break
            news.append(script.relay[told])
            told += 1
        news.append(("child", event))
        if event[0] != "message.part.delta" and draw(st.integers(0, 9)) == 0:
            news.append(news[-1])
    news += script.relay[told:]
    if may_cut and draw(st.integers(0, 3)) == 0:
        news = news[: draw(st.integers(0, len(news)))]
    return news, script
