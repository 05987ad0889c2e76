"""While opencode works: how the turn ends, silences, gaps, retries, the deadline, a lost child."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.managed.turns.commands import (
    Abort,
    Append,
    AskBusy,
    Close,
    Detach,
    Finish,
    Open,
    ReadTruth,
    RejectQuestion,
    ReplyPermission,
    Reschedule,
    Run,
    SendPrompt,
)
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import (
    Aborted,
    ChildLost,
    Input,
    Refused,
    Stopping,
    Truth,
    Unavailable,
    Violation,
)
from sidecar.managed.turns.outcome import COMPLETED, REFUSED, failed, failed_for
from sidecar.managed.turns.phases import Phase
from sidecar.managed.turns.timing import Limits
from sidecar.model_requests import ModelRequestStarted
from sidecar.wire.opencode_events import ChildGap
from tests.playbook import (
    PROMPT,
    WAIT_SECONDS,
    Playbook,
    after,
    assistant,
    busy,
    call,
    child,
    conversation,
    echo,
    fails,
    idle,
    part,
    says,
    status,
    step_finish,
    text,
)
from tests.turn_scripts import ended

ANSWER: list[Input] = [text("hello"), ended("req_1", is_error=False), step_finish()]
ENDED = says("span.model_request_end")


def test_a_turn_ends_when_opencode_is_idle() -> None:
    """Whatever came with the idle event is shown before the end."""
    play = Playbook.working() >> [*ANSWER, idle()]
    assert play << says("agent.message", "span.model_request_end") << Finish(COMPLETED)
    assert play.phase is Phase.ENDED


def test_what_follows_the_end_in_one_batch_is_not_lost() -> None:
    """The whole batch is applied before the turn ends: a request that is reported late keeps its tokens."""
    play = Playbook.working() >> [text("hello"), idle(), ended("req_1", is_error=False)]
    assert play << says("agent.message", "span.model_request_end") << Finish(COMPLETED)
    assert [usage.input_tokens for usage in play.said[-1].used] == [1]


def test_the_end_of_a_step_is_not_the_end_of_the_turn() -> None:
    """The next request may follow; the start that stands alone is stored after 5 ms."""
    play = Playbook.working() >> ANSWER << says("agent.message", "span.model_request_end")
    play = play >> ModelRequestStarted("req_2") >> after(0.004) >> after(0.002)
    assert play << says("span.model_request_start")


def test_a_start_that_waits_is_stored_before_what_follows_it() -> None:
    """Two appends: the preview of a text must not be seen before its request."""
    play = Playbook.sent() >> [echo(), busy(), assistant(), ModelRequestStarted("req_1")]
    started = part("text", "prt_1", text="", time={"start": 1})
    play = play >> started << says("span.model_request_start") << says()
    assert [preview.type for preview in play.said[-1].previews] == ["event_start"]


def test_a_refusal_ends_the_turn_as_one() -> None:
    """With the details that the API shows."""
    refusal = child("session.error", error={"name": "ContentFilterError", "data": {}})
    assert Playbook.working() >> [refusal, idle()] << ENDED << Finish(REFUSED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            {"name": "APIError", "data": {"message": "slow", "statusCode": 429}},
            "model_rate_limited_error",
        ),
        (
            {"name": "ContextOverflowError", "data": {"message": "long"}},
            "model_request_failed_error",
        ),
        ({"name": "UnknownError", "data": {"message": "odd"}}, "unknown_error"),
        ({"name": "MessageAbortedError", "data": {}}, "unknown_error"),
    ],
)
def test_an_error_of_opencode_ends_the_turn_with_its_type(error: dict[str, Any], kind: str) -> None:
    """The first error counts; a second repeats it with a stack trace."""
    again = {"name": "UnknownError", "data": {"message": "again"}}
    play = Playbook.working() >> [child("session.error", error=e) for e in (error, again)] >> idle()
    *_, finish = play._unnamed
    assert isinstance(finish, Finish)
    assert finish.outcome.failure is not None
    assert finish.outcome.failure.type == kind


@pytest.mark.parametrize("is_summary_refused", [False, True])
def test_too_long_a_prompt_is_mended_by_a_compaction(is_summary_refused: bool) -> None:
    """opencode reports the error, compacts, and goes on; a summary that is too long itself ends the turn."""
    error = {"name": "ContextOverflowError", "data": {"message": "long"}}
    failed = {"error": error} if is_summary_refused else {}
    summary = {
        "id": "msg_2",
        "role": "assistant",
        "summary": True,
        "time": {"completed": 2},
        **failed,
    }
    play = (
        Playbook.working()
        >> child("session.error", error=error)
        >> [
            child("message.updated", info=summary),
            assistant("msg_3"),
            text("hello", message="msg_3"),
            idle(),
        ]
    )
    *_, finish = play._unnamed
    assert isinstance(finish, Finish)
    assert (finish.outcome.failure is not None) == is_summary_refused


def test_silence_is_no_end_while_opencode_is_busy() -> None:
    """It is asked after `watchdog_seconds`, and again after as long; any input starts the time anew."""
    play = Playbook.working() >> after(29) >> busy() >> after(29) >> after(1.1) << ReadTruth()
    play = play >> Truth(is_busy=True) >> after(29) >> after(1.1) << ReadTruth()
    assert play.phase is Phase.WORKING


def test_a_silence_in_which_opencode_has_ended_is_repaired_from_its_messages() -> None:
    """What was missed is shown, once."""
    parts = [
        {"id": "prt_start", "messageID": "msg_1", "type": "step-start"},
        {"id": "prt_text", "messageID": "msg_1", "type": "text", "text": "hi", "time": {"end": 2}},
        {"id": "prt_end", "messageID": "msg_1", "type": "step-finish", "tokens": {}},
    ]
    info = {"id": "msg_1", "role": "assistant", "parentID": PROMPT}
    truth = Truth(is_busy=False, messages=conversation({"info": info, "parts": parts}))
    play = Playbook.working() >> after(30) << ReadTruth() >> truth
    assert play << says("agent.message", "span.model_request_end") << Finish(COMPLETED)


def test_a_silence_does_not_show_earlier_turns_again() -> None:
    """opencode lists the whole conversation, while a command of this turn may run for minutes."""
    play = Playbook.working() >> call("read", "call_1") << says("agent.tool_use")
    assert play >> after(30) << ReadTruth() >> Truth(is_busy=True, messages=conversation())


def test_a_child_that_is_too_slow_to_tell_the_truth_is_not_dead() -> None:
    """The next silence asks again; its supervisor says when it is dead."""
    play = Playbook.working() >> after(30) << ReadTruth() >> Unavailable(ReadTruth(), "slow")
    assert play >> after(30) << ReadTruth()


@pytest.mark.parametrize("question", [SendPrompt(), AskBusy()])
def test_an_answer_that_is_late_is_no_loss(question: SendPrompt | AskBusy) -> None:
    """A loaded opencode may have taken the prompt: it is asked, and nothing is cut or sent again."""
    late = Unavailable(question, "opencode did not answer", is_slow=True)
    for play in (Playbook.sent(), Playbook.working()):
        assert play >> late << ReadTruth() >> Truth(is_busy=True)


def test_a_late_prompt_that_opencode_does_not_work_on_is_sent_again() -> None:
    """After it was asked whether it has taken it."""
    play = Playbook.sent() >> Unavailable(SendPrompt(), "late", is_slow=True) << ReadTruth()
    play = play >> Truth(is_busy=False) << Close()
    assert play >> after(0.1) << Open(WAIT_SECONDS - 0.1, is_repeated=True)


def test_after_a_gap_in_the_events_the_truth_is_asked() -> None:
    """Once, however many reconnects there are before the answer."""
    gap = ChildGap(1)
    assert Playbook.working() >> gap << ReadTruth() >> [gap, gap] >> Truth(is_busy=True)


def test_a_lost_child_cuts_the_turn() -> None:
    """Every request gets its end."""
    play = Playbook.working() >> ChildLost("is being restarted") << ENDED
    assert play << fails("opencode is being restarted; the turn was cut")


def test_a_stop_cuts_the_turn() -> None:
    """The sidecar has waited as long as it may."""
    play = Playbook.working() >> Stopping() << ENDED
    assert play << fails("the sidecar is being stopped; the turn was cut")


def test_a_turn_that_takes_too_long_is_cut_and_opencode_is_asked_to_stop() -> None:
    """The error names the setting."""
    play = Playbook.working(limits=Limits(max_seconds=20.0)) >> after(20) << Abort()
    text = "the turn took longer than 20 s (SIDECAR_TURN_MAX_SECONDS)"
    assert play >> Aborted() << ENDED << fails(text)


def test_a_child_that_ignores_the_request_to_stop_does_not_keep_the_turn_open() -> None:
    """Half a minute, or until it is lost, or until the sidecar stops."""
    text = "the turn took longer than 20 s (SIDECAR_TURN_MAX_SECONDS)"
    for end in (after(30), ChildLost("died"), Stopping(), Unavailable(Abort(), "hangs")):
        play = Playbook.working(limits=Limits(max_seconds=20.0)) >> after(20) << Abort()
        assert play >> end << ENDED << fails(text)


def test_a_request_that_opencode_refuses_ends_the_turn() -> None:
    """It may go on otherwise: it is asked to stop."""
    reply = ReplyPermission("per_1", "once")
    play = Playbook.working() >> Refused(reply, "status 500", 500) << Abort()
    assert play >> Aborted() << ENDED << fails("status 500")


def test_a_violation_ends_the_turn() -> None:
    """Also while it waits for the client; opencode is asked to stop."""
    failure = Failure("unknown_error", "the directory is too large")
    for play in (Playbook.sent(), Playbook.working()):
        assert play >> Violation(failure) << Abort()
        assert play.phase is Phase.GIVING_UP
    assert play >> [Violation(failure), Aborted()] << ENDED << Finish(failed(failure))


def test_a_long_wait_for_another_try_is_shown() -> None:
    """Rescheduled, until the next request or opencode's word; the failed request has its end."""
    retry = status("retry", next=60_000)
    play = Playbook.working() >> [ended("req_1", is_error=True), retry]
    play = play << ENDED << Reschedule()
    assert play.phase is Phase.RETRYING
    play = play >> [retry, ModelRequestStarted("req_2")] << Run()
    assert play.phase is Phase.WORKING
    again = Playbook.working() >> retry << Reschedule() >> busy() << Run()
    assert again.phase is Phase.WORKING


def test_a_short_wait_for_another_try_is_silent() -> None:
    """Clients' sample loops stop at any error."""
    play = Playbook.working() >> [ended("req_1", is_error=True), status("retry", next=500)] << ENDED
    assert play.phase is Phase.WORKING


def test_a_question_of_a_tool_is_refused() -> None:
    """No user is there to answer it."""
    assert Playbook.working() >> child("question.asked", id="que_1") << RejectQuestion("que_1")


def test_what_a_sub_agent_asks_is_refused() -> None:
    """The client never sees its session; its texts are not the turn's."""
    play = Playbook.working() >> child("permission.asked", session="ses_sub", id="per_9")
    play = play << ReplyPermission("per_9", "reject", "The user did not allow this call.")
    play = play >> child("question.asked", session="ses_sub", id="que_9") << RejectQuestion("que_9")
    assert play >> child("message.updated", session="ses_sub", info={"role": "assistant"})


def test_events_of_the_turn_before_are_not_shown() -> None:
    """Until opencode has echoed the prompt, what it says belongs to an earlier one."""
    assert Playbook.sent() >> [busy(), assistant("msg_0"), text("old", message="msg_0"), idle()]


def test_a_bug_of_ours_ends_the_turn_from_any_phase() -> None:
    """The one way around the table; calls and requests are closed as at any end."""
    for play in (Playbook.sent(), Playbook.working()):
        commands = play.machine.crash("the sidecar failed: KeyError")
        assert commands[-1] == Finish(failed_for("the sidecar failed: KeyError"))
    assert any(isinstance(command, Append) for command in commands)


def test_a_turn_that_is_over_reacts_to_nothing() -> None:
    """Stale results and events may still arrive."""
    play = Playbook.working() >> [*ANSWER, idle()]
    play = play << says("agent.message", "span.model_request_end") << Finish(COMPLETED)
    assert play.machine.is_over
    assert not isinstance(play.machine.handle([Stopping(), idle()], 1.0)[0], Detach)
