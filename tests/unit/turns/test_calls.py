"""Tool calls that need the client: when they are shown, when the turn waits, what each answer does."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.commands import (
    Abort,
    Detach,
    Finish,
    GiveToolResult,
    ReadTruth,
    ReplyPermission,
    Wait,
)
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.inputs import (
    Aborted,
    ChildLost,
    ClientAnswer,
    Dismissed,
    Input,
    Stopping,
    Truth,
)
from sidecar.managed.turns.outcome import COMPLETED
from sidecar.managed.turns.phases import Phase
from sidecar.managed.turns.timing import Limits
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.model_requests import ModelRequestEnded
from sidecar.wire.opencode_events import ChildGap
from tests.playbook import Playbook, after, asked, assistant, call, fails, idle, says, step_finish
from tests.turn_scripts import ended

REQUEST_ENDED = ended("req_1", is_error=False)
DENIED = "The user did not allow this call."


def waiting(*names: str, **given: object) -> tuple[Playbook, list[str]]:
    """Return a turn that waits for the client's answer to calls of these tools, and their event ids."""
    calls: list[Input] = [call(name, f"call_{n}") for n, name in enumerate(names)]
    calls += [asked(f"call_{n}") for n, name in enumerate(names) if name == "bash"]
    play = Playbook.working(**given) >> [*calls, REQUEST_ENDED]
    uses = ["agent.custom_tool_use" if n.startswith("custom") else "agent.tool_use" for n in names]
    play = play >> after(0.15) << says(*uses, "span.model_request_end")
    ids = play.waiting
    return play << Wait(tuple(ids)), ids


def test_an_allowed_call_runs_without_the_client() -> None:
    """It is shown at once, and its result when it is there."""
    play = Playbook.working() >> call("read", "call_1") << says("agent.tool_use")
    play = play >> [REQUEST_ENDED, call("read", "call_1", "completed", output="x")]
    assert play << says("span.model_request_end", "agent.tool_result")


def test_a_call_that_needs_the_client_is_shown_after_its_request() -> None:
    """All calls of a request stand together: a quiet time after the last of them."""
    play = Playbook.working() >> [call("bash", "call_1"), asked("call_1")] >> after(1)
    play = play >> REQUEST_ENDED >> after(0.1) >> call("custom_lookup", "call_2") >> after(0.14)
    play = play >> after(0.02)
    play = play << says("agent.tool_use", "agent.custom_tool_use", "span.model_request_end")
    assert play << Wait(tuple(play.waiting))
    assert play.phase is Phase.WAITING


def test_calls_that_opencode_reports_late_are_waited_for() -> None:
    """The relay has counted them: however late the second is, both stand in the request that made them."""
    play = Playbook.working() >> [call("bash", "call_1"), asked("call_1")]
    play = play >> ModelRequestEnded("req_1", calls=2) >> after(9)
    play = play >> [call("bash", "call_2"), asked("call_2")] >> after(0.15)
    play = play << says("agent.tool_use", "agent.tool_use", "span.model_request_end")
    assert play << Wait(tuple(play.waiting))


def test_a_call_that_opencode_never_reports_is_not_waited_for_long() -> None:
    """The other is shown all the same."""
    play = Playbook.working() >> [call("bash", "call_1"), asked("call_1")]
    play = play >> ModelRequestEnded("req_1", calls=2) >> after(10)
    play = play << says("agent.tool_use", "span.model_request_end")
    assert play << Wait(tuple(play.waiting))


def test_a_call_that_needs_the_client_is_shown_while_others_still_run() -> None:
    """The client may answer meanwhile; the turn waits for it only when nothing else goes on."""
    play = Playbook.working() >> call("read", "call_1") << says("agent.tool_use")
    play = play >> [call("custom_lookup", "call_2"), REQUEST_ENDED] >> after(0.15)
    play = play << says("agent.custom_tool_use", "span.model_request_end")
    assert play.phase is Phase.WORKING
    play = play >> call("read", "call_1", "completed", output="x") << says("agent.tool_result")
    assert play << Wait(tuple(play.waiting))


def test_an_allowed_confirmation_lets_the_call_run() -> None:
    """And the turn works on."""
    play, (bash,) = waiting("bash")
    assert play >> ClientAnswer(bash, "allow") << ReplyPermission("per_call_0", "once")
    assert play.phase is Phase.WORKING


def test_a_denied_confirmation_rejects_the_call_with_the_clients_words() -> None:
    """The result carries them, too."""
    play, (bash,) = waiting("bash")
    play = play >> ClientAnswer(bash, "deny", "not that")
    play = play << ReplyPermission("per_call_0", "reject", "not that")
    play = play >> call("bash", "call_0", "error", error="rejected") << says("agent.tool_result")
    (result,) = play.said[-1].drafts
    assert result.fields["error"] == "Call rejected by the user: not that"


def test_a_denial_is_held_back_while_another_call_waits() -> None:
    """opencode rejects all pending calls with the one that is rejected."""
    play, (one, two) = waiting("bash", "bash")
    play = play >> ClientAnswer(one, "deny") << Wait((two,))
    play = play >> ClientAnswer(two, "allow") << ReplyPermission("per_call_1", "once")
    assert play << ReplyPermission("per_call_0", "reject", DENIED)


def test_the_result_of_a_custom_tool_goes_to_the_call() -> None:
    """The client's own event is the result: no other is written when the call ends."""
    play, (custom,) = waiting("custom_lookup")
    answer = ClientAnswer(custom, "allow", content=[{"type": "text", "text": "42"}])
    given = GiveToolResult("lookup", {"command": "call_0"}, answer.content)
    play = play >> answer << given
    assert play >> call("custom_lookup", "call_0", "completed", output="42")


def test_one_answer_of_two_waits_for_the_other() -> None:
    """The answered call goes on at once; when it is done the turn waits again."""
    play, (one, two) = waiting("custom_lookup", "bash")
    play = play >> ClientAnswer(one, "allow") << GiveToolResult("lookup", {"command": "call_0"})
    play = play >> call("custom_lookup", "call_0", "completed", output="x") << Wait((two,))
    assert play.waiting == [two]


@pytest.mark.parametrize(
    "end",
    [ChildLost("stopped unexpectedly"), Stopping(), idle()],
    ids=["child lost", "stopping", "idle"],
)
@pytest.mark.parametrize("is_answer_first", [True, False])
def test_a_call_is_not_answered_twice(end: Input, is_answer_first: bool) -> None:
    """The answer was accepted, so it is in the log: whatever ends the turn with it writes no second one."""
    play, (one, two) = waiting("custom_lookup", "custom_lookup")
    play = play >> ClientAnswer(one, "allow") << GiveToolResult("lookup", {"command": "call_0"})
    answer = ClientAnswer(two, "allow")
    play = play >> ([answer, end] if is_answer_first else [end, answer])
    play = play << GiveToolResult("lookup", {"command": "call_1"})
    assert play._unnamed, "the turn has ended"
    play._unnamed.clear()
    assert not [d for said in play.said for d in said.drafts if "result" in d.type]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (ChildLost("died"), "opencode died; the turn was cut"),
        (Stopping(), "the sidecar is being stopped; the turn was cut"),
    ],
    ids=["child lost", "stopping"],
)
def test_an_answer_counts_before_what_arrived_with_it(end: Input, message: str) -> None:
    """The session is shown as running since it was accepted: a turn that let go now would never go on."""
    play, (bash,) = waiting("bash")
    play = play >> [end, ClientAnswer(bash, "allow")] << ReplyPermission("per_call_0", "once")
    assert play << says("agent.tool_result") << fails(message)


def test_a_call_that_was_allowed_before_a_restart_is_not_asked_about_again() -> None:
    """The model repeats it: it runs under the event that announced it, and is not shown twice."""
    before = LoggedCall("sevt_old", "builtin", "bash", {"command": "call_1"}, None)
    play = Playbook.working(continuation=Continuation(granted=[before]))
    play = play >> [call("bash", "call_1"), asked("call_1"), REQUEST_ENDED]
    play = play << ReplyPermission("per_call_1", "once")
    play = play >> call("bash", "call_1", "completed", output="x")
    assert play << says("span.model_request_end", "agent.tool_result")
    assert play.said[-1].drafts[1].fields["tool_use_id"] == "sevt_old"


def test_a_call_may_have_the_id_of_an_earlier_one() -> None:
    """Some gateways number the calls of each answer: the next one is shown and asked about for itself."""
    play, (first,) = waiting("bash")
    play = play >> ClientAnswer(first, "allow") << ReplyPermission("per_call_0", "once")
    play = play >> call("bash", "call_0", "completed", output="x") << says("agent.tool_result")
    again = call("bash", "call_0", part_id="prt_again", message="msg_2")
    play = play >> [assistant("msg_2"), again, asked("call_0", message="msg_2")] >> after(0.15)
    play = play << says("agent.tool_use")
    (second,) = play.waiting
    assert second != first
    play = play << Wait((second,)) >> ClientAnswer(second, "allow")
    assert play << ReplyPermission("per_call_0", "once")


def test_a_permission_that_belongs_to_no_call_is_rejected() -> None:
    """No client could be asked about it."""
    assert Playbook.working() >> asked("") << ReplyPermission("per_", "reject", DENIED)


def test_the_clients_time_is_not_the_turns() -> None:
    """Neither the deadline nor the watchdog runs while it waits."""
    play, (bash,) = waiting("bash", limits=Limits(max_seconds=20.0))
    play = play >> after(100_000) >> ClientAnswer(bash, "allow")
    play = play << ReplyPermission("per_call_0", "once") >> after(19) >> after(1) << Abort()
    message = "the turn took longer than 20 s (SIDECAR_TURN_MAX_SECONDS)"
    assert play >> Aborted() << says("agent.tool_result") << fails(message)


@pytest.mark.parametrize("end", [ChildLost("died"), Stopping()], ids=["child lost", "stopping"])
def test_a_turn_that_waits_survives_its_child_and_the_sidecar(end: Input) -> None:
    """The log has what is needed to go on."""
    play, _ = waiting("bash")
    assert play >> end << Detach()


def test_a_turn_of_a_deleted_session_lets_go_when_opencode_has_answered() -> None:
    """The call must not run when the session is gone."""
    play, _ = waiting("bash")
    assert play >> Dismissed() << Abort() >> Aborted() << Detach()


def test_a_gap_while_the_turn_waits_is_repaired() -> None:
    """Another program may have ended it."""
    play, _ = waiting("bash")
    play = play >> ChildGap(1) << ReadTruth() >> Truth(is_busy=True)
    assert play >> idle() << says("agent.tool_result") << Finish(COMPLETED)


def test_calls_of_the_next_request_wait_for_their_own_end() -> None:
    """Nothing of the first request is shown again."""
    play, (bash,) = waiting("bash")
    play = play >> ClientAnswer(bash, "allow") << ReplyPermission("per_call_0", "once")
    play = play >> [call("bash", "call_0", "completed", output="x"), step_finish()]
    assert play << says("agent.tool_result")
