"""What an interrupt does, phase by phase, and how a turn ends that is being aborted."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.commands import Abort, AskBusy, Finish, GiveToolResult, SendPrompt, Warn
from sidecar.managed.turns.inputs import (
    Aborted,
    Busy,
    ChildLost,
    ClientAnswer,
    Dismissed,
    Input,
    Interrupt,
    Refused,
    Stopping,
    Unavailable,
)
from sidecar.managed.turns.outcome import COMPLETED
from sidecar.managed.turns.phases import Phase
from sidecar.model_requests import ModelRequestStarted
from sidecar.wire.opencode_events import ChildGap
from tests.playbook import (
    Playbook,
    after,
    assistant,
    busy,
    call,
    child,
    echo,
    idle,
    says,
    text,
)
from tests.turn_scripts import ended
from tests.unit.turns.test_calls import waiting

ENDED = says("span.model_request_end")
UNCONFIRMED = Warn("abort was not confirmed")


def aborting() -> Playbook:
    """Return a turn that was interrupted while it worked."""
    return Playbook.working() >> Interrupt() << Abort()


def test_an_interrupt_aborts_and_the_turn_ends_when_opencode_is_idle() -> None:
    """Idle is asked for: the event may be of an abort that opencode has forgotten."""
    play = aborting() >> Aborted() >> idle() << AskBusy() >> Busy(False)
    assert play << ENDED << Finish(COMPLETED)


def test_an_abort_that_opencode_has_forgotten_is_repeated() -> None:
    """It is still busy after its idle event."""
    play = aborting() >> idle() << AskBusy() >> Busy(True) << Abort()
    assert play >> idle() << AskBusy() >> Busy(False) << ENDED << Finish(COMPLETED)


def test_an_interrupt_waits_for_the_first_model_request() -> None:
    """An abort that comes earlier is forgotten, or breaks what opencode is just loading."""
    play = Playbook.sent() >> Interrupt() >> [echo(), busy()]
    play = play >> ModelRequestStarted("req_1") << Abort()
    assert play.phase is Phase.ABORTING


def test_an_interrupt_waits_five_seconds_for_the_first_model_request() -> None:
    """Then it aborts all the same."""
    assert Playbook.sent() >> Interrupt() >> after(4.9) >> after(0.2) << Abort()


def test_a_turn_that_ends_before_the_abort_needs_none() -> None:
    """opencode has answered without a model request, or has dropped the prompt."""
    play = Playbook.sent() >> Interrupt() >> [echo(), busy(), assistant(), idle()]
    assert play << Finish(COMPLETED)
    play = Playbook.sent() >> Interrupt() >> [echo(), busy(), idle()] << AskBusy()
    assert play >> Busy(False) << Finish(COMPLETED)


def test_what_follows_an_interrupt_in_one_batch_is_not_lost() -> None:
    """Usage included: the relay's report of the end came with the interrupt."""
    play = Playbook.working() >> [Interrupt(), ended("req_1", is_error=None)] << Abort()
    play = play >> idle() << AskBusy() >> Busy(False) << ENDED << Finish(COMPLETED)
    assert [usage.input_tokens for usage in play.said[-1].used] == [1]
    play = Playbook.working() >> [Interrupt(), ended("req_1", is_error=None), idle()]
    assert play << ENDED << Finish(COMPLETED), "opencode is done already: there is nothing to abort"


def test_a_request_that_starts_behind_an_interrupt_is_aborted_at_once() -> None:
    """The abort does not wait for a start that was in the same batch."""
    play = Playbook.sent() >> [Interrupt(), echo(), busy(), ModelRequestStarted("req_1")] << Abort()
    assert play.phase is Phase.ABORTING


def test_an_interrupt_whose_idle_event_is_lost_in_a_reconnect_asks_the_truth() -> None:
    """It does not wait for an event that never comes."""
    play = aborting() >> ChildGap(1) << AskBusy() >> Busy(False)
    assert play << ENDED << Finish(COMPLETED)
    play = Playbook.sent() >> Interrupt() >> ChildGap(1) << AskBusy() >> Busy(True)
    assert play.phase is Phase.ABORTING


def test_what_an_abort_cuts_is_not_shown() -> None:
    """Half a text, and the error of an aborted call: the end of the turn closes it with our words."""
    play = Playbook.working() >> call("read", "call_1") << says("agent.tool_use")
    play = play >> Interrupt() << Abort()
    play = play >> [text("hal"), call("read", "call_1", "error", error="Tool execution aborted")]
    play = play >> idle() << AskBusy() >> Busy(False)
    play = play << says("span.model_request_end", "agent.tool_result") << Finish(COMPLETED)
    assert play.said[-1].drafts[1].fields["error"] == "interrupted before completion"


def test_a_call_that_was_quicker_than_the_abort_is_shown_with_its_result() -> None:
    """It left its trace: the log must have it, even when opencode reports it after the abort."""
    play = aborting() >> [call("read", "call_1", "completed", output="done"), idle()]
    play = (
        play << AskBusy() << says("agent.tool_use", "span.model_request_end", "agent.tool_result")
    )
    assert play >> Busy(False) << Finish(COMPLETED)


@pytest.mark.parametrize(
    ("end", "is_warned"),
    [
        (ChildLost("died"), False),
        (Stopping(), False),
        (Unavailable(Abort(), "hangs"), True),
        (Refused(Abort(), "status 500", 500), True),
        (after(30), True),
    ],
    ids=["child lost", "stopping", "no answer", "refused", "half a minute"],
)
def test_a_child_that_does_not_confirm_does_not_keep_the_turn_open(
    end: Input | after, is_warned: bool
) -> None:
    """The interrupt is over; a stop of the sidecar does not wait for a child that hangs."""
    play = aborting() >> end
    play = play << UNCONFIRMED if is_warned else play
    assert play << ENDED << Finish(COMPLETED)


def test_further_interrupts_change_nothing() -> None:
    """One abort is under way."""
    play = aborting() >> Interrupt() >> [Interrupt(), Interrupt()]
    assert play >> idle() << AskBusy() >> Busy(False) << ENDED << Finish(COMPLETED)


def test_an_interrupt_of_a_turn_that_waits_for_the_client() -> None:
    """The open call gets its result from us."""
    play, _ = waiting("bash")
    play = play >> Interrupt() << Abort() >> idle() << AskBusy() >> Busy(False)
    assert play << says("agent.tool_result") << Finish(COMPLETED)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_that_comes_with_an_interrupt_is_the_calls_only_result(is_late: bool) -> None:
    """It was accepted, before the interrupt or while the abort is under way."""
    play, (custom,) = waiting("custom_lookup")
    answer, given = ClientAnswer(custom, "allow"), GiveToolResult("lookup", {"command": "call_0"})
    if is_late:
        play = play >> Interrupt() << Abort() >> answer << given
    else:
        play = play >> [Interrupt(), answer] << given << Abort()
    assert play >> idle() << AskBusy() >> Busy(False) << Finish(COMPLETED)


def test_a_prompt_that_could_not_be_sent_is_aborted_all_the_same() -> None:
    """It may have arrived; one answer is enough, for no event will come."""
    play = Playbook.sent() >> Interrupt() >> Unavailable(SendPrompt(), "no answer") << Abort()
    assert play >> Aborted() << Finish(COMPLETED)


def test_a_session_that_is_deleted_during_an_interrupt_needs_no_terminal_event() -> None:
    """Its turn lets go as soon as opencode has taken the request to stop."""
    play, _ = waiting("bash")
    play = play >> Interrupt() << Abort() >> Dismissed() << Abort() >> Aborted()
    assert [type(command).__name__ for command in play._unnamed] == ["Detach"]


def test_a_question_during_an_abort_is_refused_and_not_waited_for() -> None:
    """A sub-agent's is not: it goes down with its parent."""
    play = aborting() >> child("permission.asked", session="ses_sub", id="per_9")
    assert play.phase is Phase.ABORTING
    assert play
