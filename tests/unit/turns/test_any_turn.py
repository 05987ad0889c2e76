"""Random but legal turns through the machine: what holds for all of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import ChildLost, Input, Interrupt, Stopping, Violation
from sidecar.wire.opencode_events import ChildGap
from tests.event_rules import check_events
from tests.turn_player import Player
from tests.turn_scripts import News, Script, arrivals

ANSWERED_TWICE = Path(__file__).parents[2] / "recordings" / "turns" / "answered-twice.json"
HAPPENINGS: list[Input | None] = [
    None,
    Interrupt(),
    ChildLost("died"),
    Stopping(),
    Violation(Failure("unknown_error", "too large")),
    ChildGap(1),
]


def check(player: Player, script: Script | None = None) -> None:
    """Check the log of a turn that was played to its end."""
    player.play()
    check_events(player.log, is_over=not player.is_detached)
    requests = [e for e in player.log if e["type"] == "span.model_request_start"]
    if not player.is_detached:
        assert len(player.used) == len(requests), "every request is counted once"
        assert player.record.state == "idle"
    check_previews(player)
    shown = [e["content"][0]["text"] for e in player.log if e["type"] == "agent.message"]
    uses = [e["input"]["command"] for e in player.log if e["type"].endswith("tool_use")]
    assert len(uses) == len(set(uses)), "a call is shown once"
    assert "secret" not in json.dumps(player.log), "reasoning is not shown"
    if script is not None and not player.is_cut:
        assert shown == script.texts
        assert set(uses) == calls_of(script)


def check_previews(player: Player) -> None:
    """A preview starts once, before its deltas, and never says more than the message of its id."""
    finals = {e["id"]: e["content"][0]["text"] for e in player.log if e["type"] == "agent.message"}
    shown: dict[str, str] = {}
    for preview in player.previews:
        if preview.type == "event_start":
            assert preview.event_id not in shown
            shown[preview.event_id] = ""
        else:
            shown[preview.event_id] += json.loads(preview.text)["delta"]["content"]["text"]
    assert finals.keys() <= shown.keys(), "every message was announced"
    for event_id, text in finals.items():
        assert text.startswith(shown[event_id])


def calls_of(script: Script) -> set[str]:
    """Return the ids of the calls that the child makes."""
    parts = [p["part"] for type_, p in script.child if type_ == "message.part.updated"]
    return {part["callID"] for part in parts if part["type"] == "tool"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals(may_cut=False),
    st.booleans(),
    st.sampled_from(HAPPENINGS),
    st.integers(0, 40),
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
)
def test_any_turn_ends_once_and_its_books_balance(
    drawn: tuple[list[News], Script],
    is_eager: bool,
    turn_of_events: Input | None,
    at: int,
    choices: list[int],
) -> None:
    """One terminal event, every request ends and is counted, every call has one result, no text is lost.

    Whatever arrives together, whenever the client answers, and whatever happens to the turn.
    """
    news, script = drawn
    chances = itertools.cycle(choices)
    player = Player(
        news,
        choose=lambda most: min(next(chances), most),
        is_eager=is_eager,
        turn_of_events=turn_of_events,
        at=at,
    )
    check(player, script)


@pytest.mark.parametrize("choice", range(5))
@pytest.mark.parametrize("turn_of_events", HAPPENINGS, ids=lambda h: type(h).__name__)
@pytest.mark.parametrize("at", range(0, 40, 4))
def test_the_turn_in_which_a_call_was_once_answered_twice(
    choice: int, turn_of_events: Input | None, at: int
) -> None:
    """Two custom calls in one request, an eager client, and an end that comes with its second answer.

    The answer was accepted and not yet passed on when the turn ended, so the end closed the call again.
    """
    drawn = json.loads(ANSWERED_TWICE.read_text())
    news: list[News] = [
        (kind, tuple(what) if isinstance(what, list) else what) for kind, what in drawn["news"]
    ]
    choices = itertools.cycle([choice, 0, 1, choice])
    check(
        Player(
            news,
            choose=lambda most: min(next(choices), most),
            is_eager=drawn["is_eager"],
            turn_of_events=turn_of_events,
            at=at,
        )
    )
