"""A model that ends its turn without a word: the turn says so, unless a tool was called in it."""

from __future__ import annotations

import pytest

from sidecar.managed.turns.commands import Finish
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.failures import empty_answer
from sidecar.managed.turns.inputs import Input
from sidecar.managed.turns.outcome import COMPLETED, REFUSED, failed
from sidecar.model_requests import ModelRequestStarted
from tests.playbook import Playbook, call, child, idle, part, says, status, step_finish, text
from tests.turn_scripts import ended

END: list[Input] = [ended("req_1", is_error=False), step_finish(), idle()]
ENDED = says("span.model_request_end")


@pytest.mark.parametrize("words", [None, "", " \n"])
def test_an_answer_without_a_word_is_a_failure(words: str | None) -> None:
    """No text, an empty one, or blanks."""
    said = [] if words is None else [text(words)]
    play = Playbook.working() >> [*said, *END] << ENDED
    assert play << Finish(failed(empty_answer(has_thought=False)))


def test_reasoning_alone_is_no_answer() -> None:
    """It is shown, and the failure names it."""
    thought = part("reasoning", "prt_1", text="hm", time={"start": 1, "end": 2})
    play = Playbook.working() >> [thought, *END]
    assert (
        play
        << says("agent.thinking", "span.model_request_end")
        << Finish(failed(empty_answer(has_thought=True)))
    )


def test_a_tool_call_is_an_answer() -> None:
    """Many models end with an empty message when the tool has done what was asked."""
    done = call("read", "call_1", "completed", output="x", time={"start": 1, "end": 2})
    first: list[Input] = [
        call("read", "call_1"),
        ended("req_1", is_error=False),
        done,
        step_finish(),
    ]
    play = (
        Playbook.working()
        >> first
        << says("agent.tool_use", "span.model_request_end", "agent.tool_result")
    )
    second: list[Input] = [
        ModelRequestStarted("req_2"),
        part("step-start", "prt_s2"),
        ended("req_2", is_error=False),
        step_finish("prt_f2"),
        idle(),
    ]
    play = play >> second << says("span.model_request_start", "span.model_request_end")
    assert play << Finish(COMPLETED)


def test_a_word_before_is_an_answer() -> None:
    """Text of an earlier request of the turn counts."""
    play = Playbook.working() >> [text("hello"), ended("req_1", is_error=False), step_finish()]
    play = play << says("agent.message", "span.model_request_end")
    second: list[Input] = [
        ModelRequestStarted("req_2"),
        part("step-start", "prt_s2"),
        ended("req_2", is_error=False),
        step_finish("prt_f2"),
        idle(),
    ]
    play = play >> second << says("span.model_request_start", "span.model_request_end")
    assert play << Finish(COMPLETED)


def test_half_an_answer_that_was_tried_again_does_not_count() -> None:
    """Its text is void: what counts is the answer that ended."""
    half = part("text", "prt_half", text="hel", time={"start": 1})
    play = Playbook.working() >> [half, ended("req_1", is_error=True)] << says()
    retry = [status("retry", next=0), status("busy"), ModelRequestStarted("req_2")]
    play = play >> retry << says("span.model_request_end", "span.model_request_start")
    second: list[Input] = [
        part("step-start", "prt_s2"),
        ended("req_2", is_error=False),
        step_finish("prt_f2"),
        idle(),
    ]
    assert play >> second << ENDED << Finish(failed(empty_answer(has_thought=False)))


def test_a_refusal_is_a_refusal() -> None:
    """Without a word, too."""
    refusal = child("session.error", error={"name": "ContentFilterError", "data": {}})
    assert Playbook.working() >> [refusal, *END] << ENDED << Finish(REFUSED)


def test_a_turn_that_goes_on_after_a_restart_may_say_nothing() -> None:
    """Its tools ran before."""
    play = Playbook.working(continuation=Continuation()) >> END
    assert play << ENDED << Finish(COMPLETED)
