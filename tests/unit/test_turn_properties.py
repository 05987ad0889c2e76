"""Random but legal event sequences of opencode through the translator: what holds for all of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings

from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.tool_calls import CallState, OpenCall
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.model_requests import Usage
from tests.event_books import check_events
from tests.turn_scripts import PROMPT, Event, News, Script, arrivals, make_plan, new_ids


class Reader:
    """Plays turn and client around a translator, and writes the log."""

    def __init__(self) -> None:
        self.translator = TurnTranslator(new_id=new_ids(), plan=make_plan(), message_id=PROMPT)
        self.log: list[Event] = []
        self.previews: list[Any] = []
        self.used: list[Usage] = []
        self.write("user.message")
        self.write("session.status_running")

    def write(self, type_: str, fields: Any = (), id_: str | None = None) -> None:
        number = len(self.log)
        event = {"id": id_ or f"own_{number}", "type": type_, "processed_at": f"{number:06}"}
        self.log.append({**event, **dict(fields)})

    def take(self, out: Output) -> None:
        for draft in out.drafts:
            self.write(draft.type, draft.fields, draft.id)
        self.previews += out.previews
        self.used += out.used

    def see(self, kind: str, what: Any) -> bool:
        """Take one arrival; return whether the turn is over."""
        translator = self.translator
        if kind == "started":
            self.take(translator.request_started(what))
        elif kind == "ended":
            request, is_error = what
            usage = Usage(input_tokens=1)
            self.take(translator.request_ended(request, is_error=is_error, usage=usage))
        else:
            type_, properties = what
            part = properties.get("part", {})
            if part.get("type") == "tool" and part["state"]["status"] in {"completed", "error"}:
                self.answer(translator.open_calls.get(part["callID"]))
            if type_ == "session.status":
                if properties["status"]["type"] == "retry":
                    self.take(translator.attempt_failed())
                return translator.is_armed and properties["status"]["type"] == "idle"
            self.take(translator.child_event(type_, properties))
        return False

    def answer(self, tool: OpenCall | None) -> None:
        """A call that needs the client goes on only when the client has answered what it was shown."""
        if tool is None or not tool.needs_client or tool.state is CallState.ANSWERED:
            return
        self.take(self.translator.pause())
        tool.state = CallState.ANSWERED
        if tool.call.kind == "custom":
            self.write("user.custom_tool_result", {"custom_tool_use_id": tool.event_id})
        else:
            self.write("user.tool_confirmation", {"tool_use_id": tool.event_id})

    def end(self) -> None:
        self.take(self.translator.settle())
        for type_ in ("session.thread_status_idle", "session.usage"):
            self.write(type_)
        self.write("session.status_idle", {"stop_reason": {"type": "end_turn"}})


def read(news: list[News]) -> tuple[Reader, bool]:
    reader = Reader()
    for kind, what in news:
        if reader.see(kind, what):
            reader.end()
            return reader, True
    reader.end()
    return reader, False


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_the_books_balance_whatever_arrives(drawn: tuple[list[News], Script]) -> None:
    """Unique ids, every request one end, every call one result after its request, one terminal."""
    news, _ = drawn
    reader, _ = read(news)

    check_events(reader.log)
    announced = {e["id"] for e in reader.log if e["type"] == "span.model_request_start"}
    assert len(reader.used) == len(announced), "every request is counted once"


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_no_text_is_lost_or_leaked(drawn: tuple[list[News], Script]) -> None:
    """A turn that was told to its end shows every finished text once, in order, and no reasoning."""
    news, script = drawn
    reader, is_whole = read(news)
    shown = [e["content"][0]["text"] for e in reader.log if e["type"] == "agent.message"]

    if is_whole:
        assert shown == script.texts
    else:
        assert shown == script.texts[: len(shown)]
    assert "secret" not in json.dumps(reader.log)


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_previews_are_prefixes_of_what_follows(drawn: tuple[list[News], Script]) -> None:
    """A preview starts once, before its deltas, and never says more than the message of its id."""
    news, _ = drawn
    reader, _ = read(news)
    finals = {e["id"]: e["content"][0]["text"] for e in reader.log if e["type"] == "agent.message"}
    shown: dict[str, str] = {}
    for preview in reader.previews:
        if preview.type == "event_start":
            assert preview.event_id not in shown
            shown[preview.event_id] = ""
        else:
            shown[preview.event_id] += json.loads(preview.text)["delta"]["content"]["text"]
    for event_id, text in shown.items():
        if event_id in finals:
            assert finals[event_id].startswith(text)
    assert finals.keys() <= shown.keys(), "every message was announced"


@settings(max_examples=150, deadline=None)
@given(arrivals())
def test_every_call_of_the_child_is_shown_once(drawn: tuple[list[News], Script]) -> None:
    """Duplicated frames make no second call, and none is left out."""
    news, script = drawn
    reader, is_whole = read(news)
    uses = [e["input"]["command"] for e in reader.log if e["type"].endswith("tool_use")]
    made = {
        properties["part"]["callID"]
        for type_, properties in script.child
        if type_ == "message.part.updated" and properties["part"]["type"] == "tool"
    }

    assert len(uses) == len(set(uses))
    assert set(uses) == made if is_whole else set(uses) <= made
