"""opencode's recorded event streams become the API's events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.managed.agents.toolsets import expand
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.model_requests import Usage
from sidecar.wire.agents import AgentCreate
from tests.turn_scripts import new_ids

RECORDINGS = Path(__file__).parent.parent / "recordings" / "opencode"
TOOLSET = {"type": "agent_toolset_20260401"}


def plan(*tools: dict[str, Any]) -> ToolPlan:
    agent = AgentCreate.model_validate(
        {"name": "a", "model": "m", "tools": list(tools or (TOOLSET,))}
    )
    return ToolPlan(expand(agent.tools), [])


def recorded(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "event" in entry:
            payload = entry["event"]["payload"]
            yield payload["type"], payload["properties"]


def prompt_id(name: str) -> str:
    for type_, properties in recorded(name):
        if type_ == "message.updated" and properties["info"]["role"] == "user":
            return str(properties["info"]["id"])
    raise AssertionError(f"{name} has no prompt")


def translate(name: str, *tools: dict[str, Any]) -> tuple[Output, TurnTranslator]:
    """Feed a recording up to its first idle."""
    translator = TurnTranslator(new_id=new_ids(), plan=plan(*tools), message_id=prompt_id(name))
    out = Output()
    for type_, properties in recorded(name):
        more = translator.child_event(type_, properties)
        out.drafts += more.drafts
        out.previews += more.previews
        out.used += more.used
        if (
            translator.is_armed
            and type_ == "session.status"
            and properties["status"]["type"] == "idle"
        ):
            break
    return out, translator


def types(out: Output) -> list[str]:
    return [draft.type for draft in out.drafts]


@pytest.mark.parametrize("name", ["text", "text-messages-wire"])
def test_a_text_turn_is_one_request_with_one_message(name: str) -> None:
    """Both wire formats give the same events."""
    out, translator = translate(name)

    assert types(out) == ["span.model_request_start", "agent.message", "span.model_request_end"]
    assert translator.failure is None


@pytest.mark.parametrize("name", ["text", "text-messages-wire", "bash", "reasoning"])
def test_previews_of_a_message_add_up_to_a_prefix_of_it(name: str) -> None:
    """A preview starts once, has the id of the final event, and never says more than it."""
    out, _ = translate(name)
    finals = {d.id: d.fields["content"][0]["text"] for d in out.drafts if d.type == "agent.message"}
    shown: dict[str, str] = {}
    for preview in out.previews:
        body = json.loads(preview.text)
        if preview.type == "event_start":
            assert preview.event_id not in shown
            shown[preview.event_id] = ""
        else:
            shown[preview.event_id] += body["delta"]["content"]["text"]
    assert finals
    for event_id, text in finals.items():
        assert event_id in shown
        assert text.startswith(shown[event_id])
        assert shown[event_id]


@pytest.mark.parametrize(
    ("name", "command", "output"),
    [
        ("bash", "echo one; sleep 0.3; echo two", "one\ntwo\n"),
        ("bash-messages-wire", "echo one", "one\n"),
    ],
)
def test_a_tool_turn_has_the_documented_order(name: str, command: str, output: str) -> None:
    """Text before the call, the call, the end of the request, the result, the next request."""
    out, _ = translate(name)

    assert types(out) == [
        "span.model_request_start",
        "agent.message",
        "agent.tool_use",
        "span.model_request_end",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
    ]
    use, result = out.drafts[2], out.drafts[4]
    assert use.fields["name"] == "bash"
    assert use.fields["input"] == {"command": command}
    assert result.fields["tool_use_id"] == use.id
    assert result.fields["content"] == [{"type": "text", "text": output}]
    assert result.fields["output"] == output
    assert result.id != use.id


def test_parallel_calls_stand_together_and_each_gets_its_own_result() -> None:
    """Two uses, one end of the request, two results."""
    out, _ = translate("parallel-tools")

    assert types(out)[1:6] == [
        "agent.tool_use",
        "agent.tool_use",
        "span.model_request_end",
        "agent.tool_result",
        "agent.tool_result",
    ]
    by_use = {d.fields["tool_use_id"]: d.fields["output"] for d in out.drafts[4:6]}
    assert by_use == {out.drafts[1].id: "slow\n", out.drafts[2].id: "quick\n"}


@pytest.mark.parametrize("name", ["reasoning", "reasoning-messages-wire"])
def test_reasoning_is_shown_as_an_event_without_its_text(name: str) -> None:
    """Thinking never reaches the answer, nor any event's content."""
    out, _ = translate(name)

    assert types(out)[1:3] == ["agent.thinking", "agent.message"]
    assert out.drafts[1].fields == {}
    assert "think" not in json.dumps([d.fields for d in out.drafts])


@pytest.mark.parametrize("name", ["error-400", "error-401", "error-after-tool"])
def test_a_refused_model_request_is_the_turns_failure(name: str) -> None:
    """The first error object is kept, with its status."""
    _, translator = translate(name)

    assert translator.failure is not None
    assert translator.failure["name"] == "APIError"


def test_a_content_filter_is_a_refusal_and_no_failure() -> None:
    """What was said before the filter struck stays."""
    out, translator = translate("refusal")

    assert translator.is_refused
    assert translator.failure is None
    assert "agent.message" in types(out)


def test_events_before_our_prompt_are_ignored() -> None:
    """Trailing events of an earlier turn are dropped."""
    out = Output()
    translator = TurnTranslator(new_id=new_ids(), plan=plan(), message_id="msg_another")
    for type_, properties in recorded("bash"):
        out.drafts += translator.child_event(type_, properties).drafts

    assert out.drafts == []
    assert not translator.is_armed


def test_settling_answers_open_calls_and_ends_open_requests() -> None:
    """A cut turn leaves nothing unanswered."""
    translator = TurnTranslator(
        new_id=new_ids(), plan=plan(), message_id=prompt_id("abort-in-tool")
    )
    out = Output()
    for type_, properties in recorded("abort-in-tool"):
        if type_ == "session.error":
            break
        out.drafts += translator.child_event(type_, properties).drafts
    settled = translator.settle()

    assert types(out) == ["span.model_request_start", "agent.tool_use"]
    assert types(settled) == ["span.model_request_end", "agent.tool_result"]
    assert settled.drafts[0].fields["is_error"] is None
    assert settled.drafts[1].fields["is_error"] is True
    assert settled.drafts[1].fields["tool_use_id"] == out.drafts[1].id


def test_the_relays_news_of_an_end_waits_for_the_childs_last_words() -> None:
    """The relay's end overtakes the child's events, and its usage is the one that counts."""
    translator = TurnTranslator(new_id=new_ids(), plan=plan(), message_id=prompt_id("text"))
    started = translator.request_started("r1")
    ended = translator.request_ended("r1", is_error=False, usage=Usage(7, 5, 1, 2))
    assert types(started) == ["span.model_request_start"]
    assert types(ended) == []
    out = Output()
    for type_, properties in recorded("text"):
        more = translator.child_event(type_, properties)
        out.drafts += more.drafts
        out.used += more.used

    assert types(out) == ["agent.message", "span.model_request_end"]
    assert out.used == [Usage(7, 5, 1, 2)]
    assert out.drafts[1].fields["model_request_start_id"] == started.drafts[0].id


def test_the_relays_news_of_a_start_waits_for_the_results_of_the_step_before() -> None:
    """The next request overtakes the child's last events: results and the end of the step come first."""
    translator = TurnTranslator(new_id=new_ids(), plan=plan(), message_id=prompt_id("bash"))
    out = Output()
    out.drafts += translator.request_started("r1").drafts
    for type_, properties in recorded("bash"):
        part = properties.get("part") or {}
        if (part.get("state") or {}).get("status") == "completed":
            translator.request_ended("r1", is_error=False, usage=Usage(1, 1))
            out.drafts += translator.request_started("r2").drafts
            translator.request_ended("r2", is_error=False, usage=Usage(2, 2))
        more = translator.child_event(type_, properties)
        out.drafts += more.drafts
        out.used += more.used

    assert types(out) == [
        "span.model_request_start",
        "agent.message",
        "agent.tool_use",
        "span.model_request_end",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
    ]
    assert out.used == [Usage(1, 1), Usage(2, 2)]


def test_a_failed_request_ends_when_the_child_tries_again() -> None:
    """Every attempt is one pair of start and end, whichever of the two reports the failure first."""
    translator = TurnTranslator(new_id=new_ids(), plan=plan(), message_id="msg_x")
    translator.request_started("r1")
    told = translator.request_ended("r1", is_error=True, usage=None)
    failed = translator.attempt_failed()
    again = translator.request_started("r2")
    translator.attempt_failed()
    failed_again = translator.request_ended("r2", is_error=True, usage=None)

    assert types(told) == []
    assert types(failed) == types(failed_again) == ["span.model_request_end"]
    assert failed.drafts[0].fields["is_error"] is True
    assert types(again) == ["span.model_request_start"]


def test_what_the_child_says_late_of_a_failed_request_opens_no_other() -> None:
    """The gateway breaks off at once: the relay reports the end before the child's step has begun."""
    translator = TurnTranslator(
        new_id=new_ids(), plan=plan(), message_id=prompt_id("cut-after-text")
    )
    out = translator.request_started("r1")
    out.extend(translator.request_ended("r1", is_error=True, usage=None))
    attempts = 1
    for type_, properties in recorded("cut-after-text"):
        out.extend(translator.child_event(type_, properties))
        if type_ == "session.status" and properties["status"]["type"] == "retry":
            out.extend(translator.attempt_failed())
            if attempts == 2:
                break
            attempts = 2
            out.extend(translator.request_started("r2"))
            out.extend(translator.request_ended("r2", is_error=True, usage=None))

    assert types(out) == ["span.model_request_start", "span.model_request_end"] * 2
    ends = [d.fields["is_error"] for d in out.drafts if d.type == "span.model_request_end"]
    assert ends == [True, True]


def test_what_is_told_again_after_a_gap_is_told_once() -> None:
    """The messages are read anew while one of two calls still runs: no further request, no further call."""
    translator = TurnTranslator(
        new_id=new_ids(), plan=plan(), message_id=prompt_id("parallel-tools")
    )
    out, told = translator.request_started("r1"), []
    for type_, properties in recorded("parallel-tools"):
        told.append((type_, properties))
        out.extend(translator.child_event(type_, properties))
        state = (properties.get("part") or {}).get("state") or {}
        if state.get("status") == "completed":
            break
        if state.get("status") == "running":
            translator.request_ended("r1", is_error=False, usage=Usage(1, 1))
    again = Output()
    for type_, properties in told:
        again.extend(translator.child_event(type_, properties))

    assert types(out).count("agent.tool_result") == 1
    assert (types(again), again.used) == ([], [])


def test_a_call_that_asks_waits_for_the_client() -> None:
    """The use is shown with the end of its request, says `ask`, and the permission's id is known."""
    ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
    translator = TurnTranslator(
        new_id=new_ids(), plan=plan(ask), message_id=prompt_id("permission-allow")
    )
    out = Output()
    for type_, properties in recorded("permission-allow"):
        if type_ == "permission.replied":
            break
        out.drafts += translator.child_event(type_, properties).drafts
    (tool,) = translator.open_calls.values()
    assert "agent.tool_use" not in types(out)
    paused = translator.pause()

    assert types(paused) == ["agent.tool_use", "span.model_request_end"]
    assert paused.drafts[0].fields["evaluated_permission"] == "ask"
    assert paused.drafts[0].fields["evaluation"] == {"type": "always_ask"}
    assert tool.permission_id is not None
    assert tool.event_id == paused.drafts[0].id


def test_split_messages_are_paragraphs_that_add_up_to_the_text() -> None:
    """With `is_split` a long text goes out paragraph by paragraph; code blocks stay whole."""
    prose = "word " * 100
    paragraphs = [prose.strip(), f"```\n{prose}\n\n{prose}\n```", "The end."]
    text = "\n\n".join(paragraphs)
    translator = TurnTranslator(new_id=new_ids(), plan=plan(), message_id="msg_1", is_split=True)
    out = Output()

    def feed(type_: str, properties: dict[str, Any]) -> None:
        more = translator.child_event(type_, properties)
        out.drafts += more.drafts
        out.previews += more.previews

    feed("message.updated", {"info": {"role": "user", "id": "msg_1"}})
    feed("message.updated", {"info": {"role": "assistant", "id": "msg_2"}})
    part = {"id": "prt_1", "messageID": "msg_2", "type": "text", "text": "", "time": {"start": 1}}
    feed("message.part.updated", {"part": part})
    for start in range(0, len(text), 7):
        delta = {"partID": "prt_1", "field": "text", "delta": text[start : start + 7]}
        feed("message.part.delta", delta)
    feed("message.part.updated", {"part": part | {"text": text, "time": {"start": 1, "end": 2}}})

    messages = [draft.fields["content"][0]["text"] for draft in out.drafts]
    shown: dict[str, str] = {}
    for preview in out.previews:
        body = json.loads(preview.text)
        if preview.type == "event_delta":
            shown[preview.event_id] = (
                shown.get(preview.event_id, "") + body["delta"]["content"]["text"]
            )
    assert messages == paragraphs
    assert "".join(draft.fields["text"] for draft in out.drafts) == text
    for draft in out.drafts:
        assert draft.fields["content"][0]["text"].startswith(shown[str(draft.id)])


def test_a_command_that_fails_is_an_error_result_with_its_code() -> None:
    """opencode calls the part completed; clients, and LAP's page, show a failure only for an error."""
    out, _ = translate("bash-fails")
    (result,) = [draft for draft in out.drafts if draft.type == "agent.tool_result"]
    assert result.fields["is_error"] is True
    assert result.fields["error"].endswith("exit code 3")
    assert "output" not in result.fields


def test_a_command_that_was_killed_is_an_error_result() -> None:
    """By an abort or at its time limit: opencode calls it completed, with no exit code."""
    out = Output()
    translator = TurnTranslator(
        new_id=new_ids(), plan=plan(), message_id=prompt_id("abort-in-tool")
    )
    for type_, properties in recorded("abort-in-tool"):
        out.extend(translator.child_event(type_, properties))
    (result,) = (draft for draft in out.drafts if draft.type == "agent.tool_result")
    assert result.fields["is_error"] is True
    assert "User aborted the command" in result.fields["error"]
