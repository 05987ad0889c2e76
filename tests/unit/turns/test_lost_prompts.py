"""ADR 8: a prompt that came to nothing is sent again, once, and never when something came of it."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.commands import (
    Abort,
    AskBusy,
    Close,
    Detach,
    Finish,
    NotePrompt,
    Open,
    ReadTruth,
    SendPrompt,
)
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import (
    Aborted,
    Busy,
    ChildLost,
    Draining,
    Input,
    Interrupt,
    Opened,
    Refused,
    Stopping,
    Truth,
    Unavailable,
)
from sidecar.managed.turns.outcome import COMPLETED, failed
from sidecar.managed.turns.phases import Phase
from sidecar.model_requests import ModelRequestStarted
from tests.playbook import (
    CHILD_SESSION,
    WAIT_SECONDS,
    Playbook,
    after,
    assistant,
    busy,
    conversation,
    echo,
    fails,
    idle,
    says,
)

REOPEN = Open(WAIT_SECONDS - 0.1, is_repeated=True)
DIED = ChildLost("stopped unexpectedly")
LOST_BEFORE = "opencode stopped unexpectedly before it took the prompt"
NO_ANSWER = Unavailable(SendPrompt(), "opencode did not answer")

LOSSES: dict[str, list[Input]] = {
    "the request to send it fails": [NO_ANSWER],
    "the child dies": [DIED],
    "the child dies after it has echoed it": [echo(), busy(), DIED],
}


def resend(play: Playbook, *, first: bool = True) -> Playbook:
    """Go on from a loss to the second sending."""
    play = (play << Close() if first else play) >> after(0.1) << REOPEN
    note = NotePrompt(CHILD_SESSION, is_repeated=True)
    return play >> Opened(CHILD_SESSION) << note << SendPrompt()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_prompt_of_which_nothing_came_is_sent_again(loss: list[Input]) -> None:
    """In a directory that is loaded anew; that it is the second time is stored before."""
    assert resend(Playbook.sent() >> loss)


def test_a_prompt_that_opencode_drops_is_sent_again() -> None:
    """Busy, idle, no answer, no error; whether it is idle is asked, for the event may be an old one."""
    play = Playbook.sent() >> [echo(), busy(), idle()] << AskBusy()
    assert resend(play >> Busy(False))


def test_a_session_that_is_busy_after_all_has_dropped_nothing() -> None:
    """The idle event was of the turn before."""
    play = Playbook.sent() >> [echo(), busy(), idle()] << AskBusy() >> Busy(True)
    assert play.phase is Phase.SENT


def test_an_idle_of_the_turn_before_ends_nothing() -> None:
    """After an abort opencode says idle twice; the second may come when the next prompt is there."""
    assert Playbook.sent() >> [echo(), idle()]
    assert Playbook.sent() >> [idle(), echo()]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_it_is_sent_twice_at_most(loss: list[Input]) -> None:
    """A child that loses it again may be dying of it."""
    play = resend(Playbook.sent() >> DIED)
    message = NO_ANSWER.message if loss == [NO_ANSWER] else LOST_BEFORE
    assert play >> loss << fails(message)


@pytest.mark.parametrize(
    "work", [ModelRequestStarted("req_1"), assistant()], ids=["request", "message"]
)
def test_a_prompt_that_was_worked_on_is_not_sent_again(work: Input) -> None:
    """Tools may have run: the turn is cut."""
    play = Playbook.sent() >> [echo(), busy(), work, DIED]
    if isinstance(work, ModelRequestStarted):
        play = play << says("span.model_request_start", "span.model_request_end")
    assert play << fails("opencode stopped unexpectedly; the turn was cut")


def test_a_prompt_that_was_taken_after_all_is_not_sent_again() -> None:
    """The request failed and the prompt had arrived: opencode is asked to stop, and the turn is cut."""
    play = Playbook.sent() >> NO_ANSWER << Close() >> after(0.1) << REOPEN
    play = play >> Opened(CHILD_SESSION, has_taken=True) << Abort()
    cut = Failure("unknown_error", "opencode was lost while it worked; the turn was cut")
    assert play >> Aborted() << Finish(failed(cut))


def test_an_interrupt_of_a_lost_prompt_makes_sure_that_nobody_works_on_it() -> None:
    """It may have been taken: opencode is asked to stop, and is not sent it again."""
    play = Playbook.sent() >> NO_ANSWER << Close() >> Interrupt() << Abort()
    assert play >> Aborted() << Finish(COMPLETED)


def test_a_stop_leaves_a_lost_prompt_to_the_next_start() -> None:
    """Likewise, and the turn stays open."""
    play = Playbook.sent() >> NO_ANSWER << Close() >> Stopping() << Abort()
    assert play >> Aborted() << Detach()


def test_a_stop_does_not_wait_for_a_child_that_does_not_answer() -> None:
    """Five seconds, then the turn is left to the next start all the same."""
    play = Playbook.sent() >> NO_ANSWER << Close() >> Stopping() << Abort()
    assert play >> after(4.9) >> after(0.2) << Detach()


def test_a_prompt_that_is_lost_while_the_sidecar_drains_is_left_to_the_next_start() -> None:
    """There is no other child to send it to."""
    assert Playbook.sent() >> Draining() >> DIED << Detach()


def test_an_error_without_an_answer_is_an_answer() -> None:
    """opencode has refused the prompt: it is not sent again."""
    missing = {
        "name": "UnknownError",
        "data": {"message": "Model not found: litellm/x. Did you mean"},
    }
    error = {"info": {"id": "msg_1", "role": "assistant", "error": missing}, "parts": []}
    play = Playbook.sent() >> [echo(), busy()] >> after(30) << ReadTruth()
    failure = Failure("model_request_failed_error", "Model not found: litellm/x. Did you mean")
    assert play >> Truth(is_busy=False, messages=conversation(error)) << Finish(failed(failure))


def test_a_conversation_that_opencode_no_longer_has_ends_the_session() -> None:
    """Its data is gone: a new session is needed, and the error says so."""
    play = Playbook.sent() >> Refused(SendPrompt(), "no such session", 404)
    (finish,) = play._unnamed
    assert isinstance(finish, Finish)
    assert finish.outcome.is_terminal


def test_a_prompt_that_opencode_refuses_fails_the_turn() -> None:
    """It may have done part of it: it is asked to stop."""
    play = Playbook.sent() >> Refused(SendPrompt(), "bad request", 400) << Abort()
    assert play >> Aborted() << fails("bad request")
