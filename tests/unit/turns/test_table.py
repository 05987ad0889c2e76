"""The table of a turn's legal moves, and the one of a session's states."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.machine import TRANSITIONS, IllegalMoveError
from sidecar.managed.turns.outcome import COMPLETED
from sidecar.managed.turns.phases import OVER, Cause, Phase
from sidecar.managed.turns.state import IllegalTransitionError
from tests.playbook import Playbook
from tests.turn_player import new_record


def test_every_phase_has_its_row_and_all_but_the_last_can_be_left() -> None:
    """A turn that is over stays over."""
    assert TRANSITIONS.keys() == set(Phase)
    assert {phase for phase, row in TRANSITIONS.items() if not row} == OVER


def test_every_phase_can_be_reached_and_every_cause_moves_something() -> None:
    """Nothing in the table is dead."""
    reached = {Phase.PREPARING, Phase.RESENDING}
    for _ in Phase:
        reached |= {to for phase in reached for to in TRANSITIONS[phase].values()}
    assert reached == set(Phase)
    assert {cause for row in TRANSITIONS.values() for cause in row} == set(Cause)


def test_an_interrupt_and_a_stop_are_answered_in_every_phase_that_works() -> None:
    """An interrupt in a phase without a cell finds a turn that is ending already."""
    ending = {Phase.ABORTING, Phase.GIVING_UP}
    for phase in set(Phase) - OVER - ending:
        assert Cause.INTERRUPT in TRANSITIONS[phase]
        assert Cause.STOPPING in TRANSITIONS[phase]


def test_an_illegal_move_raises() -> None:
    """It is a bug of ours, and must not pass for a decision."""
    with pytest.raises(IllegalMoveError, match="PREPARING has no IDLE"):
        Playbook().machine._move(Cause.IDLE, COMPLETED)


def test_an_illegal_state_of_a_session_raises() -> None:
    """A session that does nothing cannot be rescheduled, and one that has ended stays ended."""
    with pytest.raises(IllegalTransitionError, match="idle -> rescheduling"):
        new_record().reschedule(0)
    record = new_record()
    record.terminate("2026-01-01T00:00:00Z", 0)
    with pytest.raises(IllegalTransitionError, match="terminated -> running"):
        record.begin("sevt_1", "msg_1", 0)
