"""What opencode was recorded to say, through the machine: how each turn ends, and what its log looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.managed.agents.toolsets import expand
from sidecar.managed.turns import commands as do
from sidecar.managed.turns.inputs import Opened, Prepared
from sidecar.managed.turns.machine import TurnMachine
from sidecar.managed.turns.phases import Phase
from sidecar.managed.turns.timing import Limits
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.wire.agents import AgentCreate
from sidecar.wire.opencode_events import ChildEvent
from tests.turn_scripts import new_ids

RECORDINGS = Path(__file__).parents[2] / "recordings" / "opencode"

ENDS: dict[str, str] = {
    "abort-in-text": "unknown_error",
    "abort-in-tool": "unknown_error",
    "bash": "end_turn",
    "bash-fails": "end_turn",
    "bash-messages-wire": "end_turn",
    "dispose-mid-turn": "unknown_error",
    "error-400": "model_request_failed_error",
    "error-401": "model_request_failed_error",
    "error-429-then-ok": "end_turn",
    "error-500-exhausted": "end_turn",  # by an abort of somebody else: no error event
    "error-500-then-ok": "end_turn",
    "error-after-tool": "model_request_failed_error",
    "mcp-permission": "end_turn",
    "mcp-tool": "end_turn",
    "mcp-tool-fails": "end_turn",
    "parallel-tools": "end_turn",
    "permission-abort": "unknown_error",
    "permission-allow": "end_turn",
    "permission-deny-pattern": "end_turn",
    "permission-deny-rule": "end_turn",
    "permission-parallel": "end_turn",
    "permission-reject": "end_turn",
    "permission-reject-message": "end_turn",
    "prompt-while-busy": "end_turn",
    "reasoning": "end_turn",
    "reasoning-messages-wire": "end_turn",
    "refusal": "refusal",
    "subagent": "end_turn",
    "text": "end_turn",
    "text-messages-wire": "end_turn",
    "tool-invalid-input": "end_turn",
    "tool-read-error": "end_turn",
    "unknown-model": "model_request_failed_error",
    "upstream-cut": "model_request_failed_error",
}

"""How the first turn of each recording ends: the stop reason, or the type of the error."""


def recorded(name: str) -> Iterator[ChildEvent]:
    """Yield the events of a recording; what a session makes that is not the first belongs to a sub-agent."""
    root = None
    for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines():
        payload = json.loads(line).get("event", {}).get("payload")
        if payload is None or not isinstance(payload["properties"].get("sessionID"), str):
            continue
        session_id = payload["properties"]["sessionID"]
        root = root or session_id
        yield ChildEvent(payload["type"], payload["properties"], None, session_id, root)


def prompt_of(events: list[ChildEvent]) -> str:
    """Return the id of the first prompt."""
    infos = [e.properties["info"] for e in events if e.type == "message.updated"]
    return next(str(info["id"]) for info in infos if info["role"] == "user")


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("name", ENDS)
def test_a_recorded_turn_ends_as_it_was_seen_to_end(name: str, batch: int) -> None:
    """One event at a time, or many together: the same events, and the same end."""
    events = list(recorded(name))
    assert replay(events, batch) == replay(events, 1)
    assert replay(events, batch)[0] == ENDS[name]


def replay(events: list[ChildEvent], batch: int) -> tuple[str, list[str]]:
    """Return how the first turn of a recording ends, and the types of its events."""
    agent = AgentCreate.model_validate(
        {"name": "a", "model": "m", "tools": [{"type": "agent_toolset_20260401"}]}
    )
    machine = TurnMachine(
        plan=ToolPlan(expand(agent.tools), []),
        message_id=prompt_of(events),
        new_id=new_ids(),
        limits=Limits(),
    )
    commands = machine.begin(0.0) + machine.handle([Prepared(), Opened("ses_1")], 0.0)
    for start in range(0, len(events), batch):
        if machine.phase is Phase.ENDED:
            break
        commands += machine.handle(events[start : start + batch], 0.0)
    finish = commands[-1]
    assert isinstance(finish, do.Finish), commands[-3:]
    types = [draft.type for c in commands if isinstance(c, do.Append) for draft in c.drafts]
    failure = finish.outcome.failure
    return failure.type if failure else str(finish.outcome.stop_reason["type"]), types
