"""A script of one turn: inputs go in, the commands that must follow are written beside them.

    play = Playbook.working() >> Interrupt() << Abort() >> idle() << AskBusy()
    assert play >> Busy(False) << says("span.model_request_end") << Finish(COMPLETED)

`>>` gives one input, or a list of them that arrived together. `<<` names a command that must come next, in
order; the next `>>`, and the end of the script, require that every command was named. `says(...)` stands for
an `Append` by the types of its events. Timers are not named: `after(seconds)` lets the time pass and fires
those that are due.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.managed.turns import commands as do
from sidecar.managed.turns import inputs as got
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.machine import TurnMachine
from sidecar.managed.turns.outcome import failed_for
from sidecar.managed.turns.phases import Phase
from sidecar.managed.turns.timing import Limits, Timer
from sidecar.model_requests import ModelRequestStarted
from sidecar.wire.opencode_events import ChildEvent
from tests.turn_scripts import PROMPT, make_plan, new_ids

CHILD_SESSION = "ses_1"
WAIT_SECONDS = 90.0


@dataclass(frozen=True)
class after:  # reads as a word of the script
    """Time that passes."""

    seconds: float


class says:  # reads as a word of the script
    """An `Append` whose events have these types, in order."""

    def __init__(self, *types: str) -> None:
        self._types = list(types)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, do.Append) and self._types == [d.type for d in other.drafts]

    def __hash__(self) -> int:
        return hash(tuple(self._types))

    def __repr__(self) -> str:
        return f"says{tuple(self._types)}"


class Playbook:
    """Drives a `TurnMachine` without a task, a clock or a store."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        continuation: Continuation | None = None,
        earlier: Failure | None = None,
    ) -> None:
        self.machine = TurnMachine(
            plan=make_plan(),
            message_id=PROMPT,
            new_id=new_ids(),
            limits=limits or Limits(prompt_wait_seconds=WAIT_SECONDS),
            continuation=continuation,
            earlier=earlier,
        )
        self.now = 0.0
        self.said: list[do.Append] = []
        self._timers: dict[Timer, float] = {}
        self._unnamed: list[do.Command] = []
        self._take(self.machine.begin(self.now))

    @classmethod
    def sent(cls, **given: Any) -> Playbook:
        """Return a turn whose prompt was just sent for the first time."""
        play = cls(**given) << do.PrepareDirectory()
        play = play >> got.Prepared() << do.Open(WAIT_SECONDS)
        note = do.NotePrompt(CHILD_SESSION, is_repeated=False)
        return play >> got.Opened(CHILD_SESSION) << note << do.SendPrompt()

    @classmethod
    def working(cls, **given: Any) -> Playbook:
        """Return a turn in its first model request, of which the child has shown an assistant message."""
        play = cls.sent(**given) >> [echo(), busy(), ModelRequestStarted("req_1")]
        play = play >> [assistant(), part("step-start", "prt_start")]
        return play << says("span.model_request_start")

    def __rshift__(self, given: got.Input | after | Sequence[got.Input]) -> Playbook:
        assert not self._unnamed, f"not named: {self._unnamed}"
        if isinstance(given, after):
            self._pass(given.seconds)
        else:
            batch = given if isinstance(given, Sequence) else [given]
            self._take(self.machine.handle(batch, self.now))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        assert self._unnamed, f"expected {expected}, and nothing more was commanded"
        command = self._unnamed.pop(0)
        assert expected == command, f"expected {expected}, got {command}; then {self._unnamed}"
        return self

    def __bool__(self) -> bool:
        assert not self._unnamed, f"not named: {self._unnamed}"
        return True

    @property
    def phase(self) -> Phase:
        """Where the turn is."""
        return self.machine.phase

    @property
    def waiting(self) -> list[str]:
        """The ids of the calls that wait for the client."""
        return list(self.machine.waiting_calls())

    def _pass(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and min(self._timers.values()) <= until:
            timer = min(self._timers, key=self._timers.__getitem__)
            self.now = max(self.now, self._timers.pop(timer))
            self._take(self.machine.handle([got.Fired(timer)], self.now))
        self.now = until

    def _take(self, commands: Sequence[do.Command]) -> None:
        for command in commands:
            if isinstance(command, do.SetTimer):
                self._timers[command.timer] = self.now + command.seconds
                continue
            if isinstance(command, do.Append):
                self.said.append(command)
            self._unnamed.append(command)


def fails(message: str) -> do.Finish:
    """Return the end of a turn that failed with that message."""
    return do.Finish(failed_for(message))


def child(type_: str, *, session: str = CHILD_SESSION, **properties: Any) -> ChildEvent:
    """Return an event of opencode; `session` differs for a sub-agent."""
    properties = {"sessionID": session, **json.loads(json.dumps(properties))}
    return ChildEvent(type_, properties, None, session, CHILD_SESSION)


def echo() -> ChildEvent:
    """Return opencode's word that it has the prompt."""
    return child("message.updated", info={"id": PROMPT, "role": "user"})


def conversation(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what opencode lists as messages: an earlier turn, the prompt and the messages after it."""
    earlier: list[dict[str, Any]] = [
        {
            "id": "prt_old_call",
            "type": "tool",
            "tool": "bash",
            "callID": "call_old",
            "messageID": "msg_0",
        },
        {
            "id": "prt_old_text",
            "type": "text",
            "text": "old",
            "time": {"end": 1},
            "messageID": "msg_0",
        },
    ]
    earlier[0]["state"] = {"status": "completed", "input": {}, "output": "old"}
    return [
        {"info": {"id": "msg_earlier_prompt", "role": "user"}, "parts": []},
        {"info": {"id": "msg_0", "role": "assistant"}, "parts": earlier},
        {"info": {"id": PROMPT, "role": "user"}, "parts": []},
        *messages,
    ]


def status(kind: str, **fields: Any) -> ChildEvent:
    """Return a status of the session."""
    return child("session.status", status={"type": kind, **fields})


def busy() -> ChildEvent:
    """Return the status of a session that is worked on."""
    return status("busy")


def idle() -> ChildEvent:
    """Return the status of a session that is not worked on."""
    return status("idle")


def assistant(message: str = "msg_1", **fields: Any) -> ChildEvent:
    """Return the first news of an assistant message."""
    info = {"id": message, "role": "assistant", "parentID": PROMPT, **fields}
    return child("message.updated", info=info)


def part(kind: str, part_id: str, *, message: str = "msg_1", **fields: Any) -> ChildEvent:
    """Return a part of an assistant message."""
    whole = {"id": part_id, "messageID": message, "type": kind, **fields}
    return child("message.part.updated", part=whole)


def text(words: str, part_id: str = "prt_text", **fields: Any) -> ChildEvent:
    """Return a finished text part."""
    return part("text", part_id, text=words, time={"start": 1, "end": 2}, **fields)


def step_finish(part_id: str = "prt_finish", **fields: Any) -> ChildEvent:
    """Return the end of a step."""
    return part("step-finish", part_id, reason="stop", tokens={"input": 1}, **fields)


def call(
    name: str,
    call_id: str,
    state: str = "running",
    *,
    message: str = "msg_1",
    part_id: str | None = None,
    **fields: Any,
) -> ChildEvent:
    """Return a tool part: `read` is allowed, `bash` asks, `custom_lookup` is the client's."""
    whole = {"status": state, "input": {"command": call_id}, **fields}
    place = part_id or f"prt_{call_id}"
    return part("tool", place, message=message, tool=name, callID=call_id, state=whole)


def asked(call_id: str, *, message: str = "msg_1") -> ChildEvent:
    """Return the permission request of a call."""
    return child(
        "permission.asked",
        id=f"per_{call_id}",
        permission="bash",
        tool={"messageID": message, "callID": call_id},
    )
