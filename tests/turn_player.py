"""Plays a drawn turn to a `TurnMachine`: opencode, the relay, a client, the log and the clock, in one thread.

What opencode and the relay say comes from `tests.turn_scripts`; the end of a call that needs the client comes
when the machine has passed the client's answer on. Everything else is drawn: how many inputs arrive together,
when the client answers, and what happens to the turn on the way.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.managed.events.event import Draft
from sidecar.managed.turns import commands as do
from sidecar.managed.turns import inputs as got
from sidecar.managed.turns.machine import TurnMachine
from sidecar.managed.turns.state import SessionRecord
from sidecar.managed.turns.timing import Limits, Timer
from sidecar.model_requests import ModelRequestStarted, Usage
from sidecar.wire.opencode_events import ChildEvent, ChildGap
from tests.turn_scripts import (
    CLIENT_TOOLS,
    PROMPT,
    SESSION,
    News,
    ended,
    make_agent,
    make_plan,
    new_ids,
)

_MAX_STEPS = 5000


def new_record(**given: Any) -> SessionRecord:
    """Return the row of a session that does nothing; `given` replaces fields."""
    fields: dict[str, Any] = {
        "id": "sesn_1",
        "agent_id": "agent_1",
        "agent_version": 1,
        "environment_id": "env_1",
        "thread_id": "sthr_1",
        "model_ref": "litellm/m",
        "status": "idle",
        "created_at": "2026-01-01T00:00:00Z",
        "archived_at": None,
        "last_seq": 0,
        "last_processed_us": 0,
        "child_session_id": None,
        "usage": Usage(),
        "active_us": 0,
        "turn": None,
    }
    fields |= given
    agent = {"name": "a", "model": {"id": "m"}, "system": None, **make_agent()}
    body = {"agent": agent, "title": None, "metadata": {}, "resources": [], "vault_ids": []}
    return SessionRecord(updated_at=fields["created_at"], body=body, **fields)


class Player:
    """`choose(n)` returns a number from 0 to n, and decides everything that is left to chance."""

    def __init__(
        self,
        news: Sequence[News],
        *,
        choose: Callable[[int], int],
        is_eager: bool,
        turn_of_events: got.Input | None = None,
        at: int = 0,
    ) -> None:
        self._script = deque(copy.deepcopy(list(news)))
        self._choose = choose
        self._is_eager = is_eager
        self._turn_of_events = turn_of_events
        self._at = at
        self._asked: dict[str, str] = {}
        self._replied: set[str] = set()
        self._given: set[str] = set()
        self._held: list[tuple[str, ChildEvent]] = []
        self._inbox: list[got.Input] = []
        self._to_answer: list[str] = []
        self._timers: dict[Timer, float] = {}
        self._position = 0
        self._is_prompted = False
        self.now = 0.0
        self.log: list[dict[str, Any]] = []
        self.previews: list[Any] = []
        self.used: list[Usage] = []
        self.is_detached = False
        self.record = new_record()
        self.machine = TurnMachine(
            plan=make_plan(),
            message_id=PROMPT,
            new_id=new_ids(),
            limits=Limits(retry_notice_seconds=0.0),
        )

    @property
    def is_cut(self) -> bool:
        """Whether something happened to the turn that may cut it."""
        return self._turn_of_events is not None and not isinstance(self._turn_of_events, ChildGap)

    def play(self) -> None:
        """Run the turn to its end."""
        self._append([Draft("user.message"), *self.record.begin("sevt_user", PROMPT, 0)])
        self._execute(self.machine.begin(self.now))
        for _ in range(_MAX_STEPS):
            if self.machine.is_over:
                return
            self._arrive()
            if self._to_answer and not (self._is_eager and self._choose(1)):
                self._answer()
            if not self._inbox and self._to_answer and not self._can_go_on():
                self._answer()
            if self._inbox:
                batch, self._inbox = self._inbox, []
                self._execute(self.machine.handle(batch, self.now))
            elif not self._can_go_on():
                self._pass_time()
        raise AssertionError("the turn does not end")

    # -- opencode and the relay ---------------------------------------------------------------------

    def _can_go_on(self) -> bool:
        """Whether opencode or the relay will say something by themselves."""
        return self._is_prompted and bool(self._script) and not self._held

    def _arrive(self) -> None:
        """Let some of what comes next arrive."""
        for call, event in list(self._held):
            if self._is_answered(call):
                self._held.remove((call, event))
                self._inbox.append(event)
        if not self._is_prompted:
            return
        for _ in range(1 + self._choose(4)):
            self._happen()
            if not self._script or (self._held and not self._is_end_of_call(self._script[0])):
                return
            self._next()

    def _happen(self) -> None:
        if self._turn_of_events is not None and self._position == self._at:
            self._inbox.append(self._turn_of_events)
            self._position += 1

    def _next(self) -> None:
        kind, what = self._script.popleft()
        self._position += 1
        if kind == "started":
            self._inbox.append(ModelRequestStarted(what))
        elif kind == "ended":
            self._inbox.append(ended(what[0], is_error=what[1]))
        else:
            type_, properties = what
            event = ChildEvent(type_, dict(properties), None, SESSION, SESSION)
            if type_ == "permission.asked":
                self._asked[properties["tool"]["callID"]] = properties["id"]
            if self._is_end_of_call((kind, what)) and not self._is_answered(
                properties["part"]["callID"]
            ):
                self._held.append((properties["part"]["callID"], event))
            else:
                self._inbox.append(event)

    @staticmethod
    def _is_end_of_call(news: News) -> bool:
        if news[0] != "child" or news[1][0] != "message.part.updated":
            return False
        part = news[1][1]["part"]
        is_over = part["type"] == "tool" and part["state"]["status"] in {"completed", "error"}
        return is_over and part["tool"] in CLIENT_TOOLS

    def _is_answered(self, call: str) -> bool:
        return call in self._given or self._asked.get(call) in self._replied

    # -- the client -----------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Send the client's next answer, and accept it as the session does."""
        call_id = self._to_answer.pop(0)
        pending = {i.tool_use_id for i in self._inbox if isinstance(i, got.ClientAnswer)}
        call = self.machine.waiting_calls().get(call_id)
        if call is None or call_id in pending:
            return  # refused with 400
        answer = got.ClientAnswer(call_id, "deny" if self._choose(2) == 0 else "allow")
        if call.kind == "custom":
            self._append([Draft("user.custom_tool_result", {"custom_tool_use_id": call_id})])
        else:
            self._append([Draft("user.tool_confirmation", {"tool_use_id": call_id})])
        self._append(self.record.take_answer(self._now_us()))
        self._inbox.append(answer)

    # -- the runner -----------------------------------------------------------------------------------

    def _execute(self, commands: Sequence[do.Command]) -> None:
        for command in commands:
            match command:
                case do.PrepareDirectory():
                    self._inbox.append(got.Prepared())
                case do.Open():
                    self._inbox.append(got.Opened(SESSION))
                case do.SendPrompt():
                    self._is_prompted = True
                case do.Abort():
                    self._script.clear()
                    self._held.clear()
                    idle = {"sessionID": SESSION, "status": {"type": "idle"}}
                    event = ChildEvent("session.status", idle, None, SESSION, SESSION)
                    self._inbox += [got.Aborted(), event]
                case do.AskBusy():
                    self._inbox.append(got.Busy(bool(self._script or self._held)))
                case do.ReadTruth():
                    self._inbox.append(got.Truth(bool(self._script or self._held)))
                case do.ReplyPermission(permission_id):
                    assert permission_id not in self._replied, "a permission is answered once"
                    self._replied.add(permission_id)
                case do.GiveToolResult(_, given):
                    assert given["command"] not in self._given, "a custom call is answered once"
                    self._given.add(given["command"])
                case do.SetTimer(timer, seconds):
                    self._timers[timer] = self.now + seconds
                case _:
                    self._change(command)

    def _change(self, command: do.Command) -> None:
        match command:
            case do.Append(drafts, previews, used):
                self.previews += previews
                self.used += used
                self._append(drafts)
            case do.Reschedule():
                self._append(self.record.reschedule(self._now_us()))
            case do.Run():
                self._append(self.record.run(self._now_us()))
            case do.Wait(event_ids):
                self._append(self.record.wait(event_ids, self._now_us()))
                if not self._is_eager:
                    self._to_answer = list(event_ids)
            case do.Finish(outcome):
                self._append(self.record.end(outcome, self._now_us()))
            case do.Detach():
                self.is_detached = True

    def _append(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            number = len(self.log)
            event = {"id": draft.id or f"own_{number}", "type": draft.type}
            self.log.append({**event, "processed_at": f"{number:06}", **draft.fields})
            if self._is_eager and _needs_client(self.log[-1]):
                self._to_answer.append(self.log[-1]["id"])

    def _pass_time(self) -> None:
        timer = min(self._timers, key=self._timers.__getitem__)
        self.now = max(self.now, self._timers.pop(timer))
        self._inbox.append(got.Fired(timer))

    def _now_us(self) -> int:
        return int(self.now * 1e6)


def _needs_client(event: Mapping[str, Any]) -> bool:
    return event["type"] == "agent.custom_tool_use" or event.get("evaluated_permission") == "ask"
