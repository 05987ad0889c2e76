"""Before opencode has the prompt: repositories, the wait for the child, interrupts and stops."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.commands import (
    Abort,
    Append,
    Detach,
    Finish,
    NotePrompt,
    Open,
    PrepareDirectory,
    SendPrompt,
)
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import (
    Aborted,
    ChildLost,
    Draining,
    Interrupt,
    Opened,
    Placed,
    Prepared,
    Refused,
    Stopping,
    Unavailable,
)
from sidecar.managed.turns.outcome import COMPLETED, failed
from sidecar.managed.turns.phases import Phase
from sidecar.model_requests import ModelRequestStarted
from tests.playbook import CHILD_SESSION, WAIT_SECONDS, Playbook, after, fails, says

RESTARTED = Failure(
    "unknown_error", "the sidecar was restarted while the turn ran; the turn was cut"
)
FIRST, LATER = Open(WAIT_SECONDS), Open(WAIT_SECONDS - 0.1)
DOWN = "opencode is not ready"


def opening() -> Playbook:
    """Return a turn that waits for opencode to open its session."""
    return Playbook() << PrepareDirectory() >> Prepared() << FIRST


def test_a_turn_prepares_opens_notes_and_sends() -> None:
    """In this order: what was sent where is stored before it is sent."""
    note = NotePrompt(CHILD_SESSION, is_repeated=False)
    assert opening() >> Opened(CHILD_SESSION) << note << SendPrompt()


def test_repositories_that_cannot_be_cloned_end_the_turn() -> None:
    """Each failure is shown; the first is the turn's."""
    one, two = (Failure("repository_clone_error", name) for name in ("one", "two"))
    failed_clone = Prepared([one, two])
    play = Playbook() << PrepareDirectory() >> failed_clone
    assert play << says("session.error") << Finish(failed(one))


def test_opencode_that_is_not_ready_is_tried_again_with_growing_pauses() -> None:
    """0.1 s, 0.2 s, ... while there is time left."""
    play = opening() >> Unavailable(FIRST, DOWN) >> after(0.1) << LATER
    play = play >> Unavailable(LATER, DOWN) >> after(0.19)
    assert play >> after(0.02) << Open(pytest.approx(WAIT_SECONDS - 0.3))


def test_opencode_that_does_not_come_back_in_time_fails_the_turn() -> None:
    """`prompt_wait_seconds` bounds all tries together."""
    play = opening() >> after(WAIT_SECONDS)
    assert play >> Unavailable(FIRST, DOWN) << fails(DOWN)


def test_an_mcp_server_that_cannot_be_reached_fails_the_turn() -> None:
    """With the type that `session.error` has for it, and without a second try."""
    failure = Failure("mcp_connection_failed_error", "no route")
    assert opening() >> Refused(FIRST, "no route", failure=failure) << Finish(failed(failure))


def test_an_interrupt_before_the_prompt_means_that_it_is_not_sent() -> None:
    """Nothing has to be aborted."""
    assert opening() >> Interrupt() << Finish(COMPLETED)
    assert Playbook() << PrepareDirectory() >> [Interrupt(), Interrupt()] << Finish(COMPLETED)


def test_an_interrupt_that_arrives_with_the_opened_session_wins_or_aborts() -> None:
    """Read first, it ends the turn; read second, the prompt is sent and then aborted."""
    assert opening() >> [Interrupt(), Opened(CHILD_SESSION)] << Finish(COMPLETED)
    play = opening() >> [Opened(CHILD_SESSION), Interrupt()]
    play = play << NotePrompt(CHILD_SESSION, is_repeated=False) << SendPrompt()
    assert play.phase is Phase.ABORTING


def test_a_turn_that_is_stopped_before_its_prompt_is_left_to_the_next_start() -> None:
    """Nothing is lost, and nothing is shown."""
    assert opening() >> Stopping() << Detach()


def test_a_turn_that_finds_no_child_while_the_sidecar_drains_is_left_to_the_next_start() -> None:
    """No child will come any more; while there is one, the prompt is still sent."""
    assert opening() >> [Draining(), Unavailable(FIRST, DOWN)] << Detach()
    note = NotePrompt(CHILD_SESSION, is_repeated=False)
    assert opening() >> Draining() >> Opened(CHILD_SESSION) << note << SendPrompt()


def test_a_child_that_is_lost_before_the_prompt_is_no_loss() -> None:
    """Its successor gets the prompt."""
    assert (
        opening()
        >> ChildLost("stopped unexpectedly")
        >> Unavailable(FIRST, DOWN)
        >> after(0.1)
        << LATER
    )


def test_a_turn_of_an_earlier_process_asks_whether_its_prompt_was_taken() -> None:
    """If it was, its tools may have run: opencode is asked to stop, and the turn ends with the reason."""
    again = Open(WAIT_SECONDS, is_repeated=True)
    play = Playbook(earlier=RESTARTED) << PrepareDirectory() >> Prepared() << again
    play = play >> Opened(CHILD_SESSION, has_taken=True) << Abort()
    assert play >> Aborted() << Finish(failed(RESTARTED))


def test_a_turn_of_an_earlier_process_whose_prompt_was_not_taken_sends_it() -> None:
    """That it is sent a second time is stored before."""
    again = Open(WAIT_SECONDS, is_repeated=True)
    play = Playbook(earlier=RESTARTED) << PrepareDirectory() >> Prepared() << again
    note = NotePrompt(CHILD_SESSION, is_repeated=True)
    assert play >> Opened(CHILD_SESSION) << note << SendPrompt()


def test_a_continued_turn_first_closes_the_calls_that_were_denied() -> None:
    """Their results stand before anything that the new prompt leads to."""
    denied = Failure("unknown_error", "stands for a result").draft()
    play = Playbook(continuation=Continuation(drafts=[denied]))
    assert play << Append((denied,)) << PrepareDirectory()


def test_model_requests_of_a_lost_prompt_are_not_shown() -> None:
    """opencode is asked about the prompt instead."""
    assert Playbook(earlier=RESTARTED) << PrepareDirectory() >> ModelRequestStarted("req_0")


def test_a_turn_that_waited_for_its_place_has_all_its_time() -> None:
    """opencode is waited for from then on, as long as by any other turn."""
    play = opening() >> after(10 * WAIT_SECONDS) >> Placed() >> Unavailable(FIRST, DOWN)
    assert play >> after(0.1) << Open(pytest.approx(WAIT_SECONDS - 0.1))
