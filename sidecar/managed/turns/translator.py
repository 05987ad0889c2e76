"""opencode's events of one turn become the API's events. Pure: no clock, no store, no sockets.

What has to be right here, each point a bug of servers before us:
- text and reasoning are kept apart, and nothing of either is lost (`text_parts`);
- one `agent.tool_use` per call, when its input is known; its result always comes after the end of the
  model request that made the call, and every call gets exactly one result (`open_calls`);
- model requests do not overlap, and each has one start and one end (`request_spans`);
- the end of a step is not the end of the turn.

Model requests are known exactly from the relay (`request_started`, `request_ended`). Its report of an
end overtakes the child's last events of that request, so the end is held back until something that
must come after it: a tool result, the end of a step, the child's report that it tries again or gives up, a
pause, the end of the turn.
For the same reason a start is held back while the child has not reported the end of the step before; a
loaded child lags by whole requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.managed.events.event import Draft
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.open_calls import NO_CALL, OpenCalls
from sidecar.managed.turns.request_spans import RequestSpans
from sidecar.managed.turns.text_parts import TextParts
from sidecar.managed.turns.tool_calls import (
    INTERRUPTED_TEXT,
    CallKey,
    LoggedCall,
    OpenCall,
    result_of,
)
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted, Usage
from sidecar.wire.opencode_events import ChildEvent

_TOOL_ENDED = frozenset({"completed", "error"})


class TurnTranslator:
    """The state of one turn's translation.

    `message_id` is the id we gave the prompt: until the child echoes it, events belong to an earlier
    turn and are ignored. `new_id` makes ids of events.
    """

    def __init__(
        self,
        *,
        plan: ToolPlan,
        message_id: str,
        new_id: Callable[[], str],
        granted: Sequence[LoggedCall] = (),
        is_split: bool = False,
    ) -> None:
        self._message_id = message_id
        self.is_armed = False
        self.failure: Mapping[str, Any] | None = None
        """opencode's error object, when the turn failed."""
        self.is_refused = False
        self.is_cut = False
        """Whether the model's latest answer used up its output limit."""
        self.has_text = False
        """Whether the model's latest answer had any text."""
        self.has_thought = False
        """Whether it had any reasoning."""
        self._has_ended_step = self._has_spoken = False
        self._calls = OpenCalls(plan=plan, new_id=new_id, granted=granted)
        self._requests = RequestSpans(new_id)
        self._texts = TextParts(is_split=is_split, new_id=new_id)
        self._assistants: set[str] = set()
        self._summaries: set[str] = set()
        self._finished_parts: set[str] = set()
        self._is_step_open = False

    @property
    def has_answer(self) -> bool:
        """Whether anything came of the prompt: an answer, were it empty, or an error."""
        return bool(self._assistants or self._summaries) or self.failure is not None

    @property
    def is_empty(self) -> bool:
        """Whether the model answered, and neither wrote anything nor called a tool in the whole turn."""
        return self._has_ended_step and not self._has_spoken and not self.calls_seen

    @property
    def has_begun(self) -> bool:
        """Whether anything was done for the prompt, so that it must not be sent again."""
        return self.has_answer or self._requests.is_reported

    @property
    def has_asked_model(self) -> bool:
        """Whether a model request has begun."""
        return self._requests.has_started

    @property
    def is_request_over(self) -> bool:
        """Whether the model has said all it will say before tools answer."""
        return self._requests.is_answered

    @property
    def open_calls(self) -> Mapping[CallKey, OpenCall]:
        """Calls without a result."""
        return self._calls.by_key

    @property
    def calls_seen(self) -> int:
        """How many calls the model has made so far."""
        return self._calls.seen

    @property
    def is_missing_calls(self) -> bool:
        """Whether the current request made calls of which the child has not reported yet."""
        return self._requests.is_missing_calls

    @property
    def has_held_calls(self) -> bool:
        """Whether calls that need the client were not shown yet, see `pause`."""
        return self._calls.has_held

    def take_stray_requests(self) -> list[str]:
        """Return, once, the permission requests that belong to no call."""
        return self._calls.take_stray_requests()

    # -- the relay's reports ----------------------------------------------------------------------

    def request_started(self, request_id: str) -> Output:
        """A model request of this session was forwarded to the gateway."""
        out = Output()
        self._requests.note_start(request_id)
        if not self._is_step_open:
            self._requests.start_next(out)
        return out

    def request_ended(
        self, request_id: str, *, is_error: bool | None, usage: Usage | None, calls: int = 0
    ) -> Output:
        """It ended. Nothing is emitted yet, see the module's docstring."""
        out = Output()
        self._requests.note_end(request_id, is_error=is_error, usage=usage, calls=calls)
        if self._requests.is_given_up:
            self._close_failed(out)
        return out

    def attempt_failed(self) -> Output:
        """The child says that the request failed and that it tries again."""
        out = Output()
        self._requests.note_given_up()
        self._close_failed(out)
        return out

    def _close_failed(self, out: Output) -> None:
        """End the request if it failed. What it left half-said is void: its parts never end."""
        if self._requests.has_failed:
            self._is_step_open = False
            self._end_request(out)
            self._requests.start_next(out)

    def model_request(self, event: ModelRequestStarted | ModelRequestEnded) -> Output:
        """Translate what the relay reports, see `request_started` and `request_ended`."""
        if isinstance(event, ModelRequestStarted):
            return self.request_started(event.request_id)
        return self.request_ended(
            event.request_id, is_error=event.is_error, usage=event.usage, calls=event.calls
        )

    # -- the child's events -----------------------------------------------------------------------

    def child_event(self, type_: str, properties: Mapping[str, Any]) -> Output:
        """Translate one event of the session itself (not of its sub-agents)."""
        out = Output()
        if type_ == "message.updated":
            self._message(out, properties["info"])
        elif type_ == "message.part.updated":
            self._part(out, properties["part"])
        elif type_ == "message.part.delta":
            self._texts.delta(out, properties)
        elif type_ == "permission.asked":
            self._permission(properties)
        elif type_ == "session.error":
            self._error(properties.get("error") or {})
            self._close_failed(out)
        return out

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> Output:
        """Translate what `GET /session/{id}/message` lists: it repeats events, or repairs a gap in them.

        It lists the whole conversation, oldest first. What comes before the prompt is of earlier turns.
        """
        out = Output()
        ids = [message["info"]["id"] for message in messages]
        begin = ids.index(self._message_id) if self._message_id in ids else len(ids)
        for message in messages[begin:]:
            out.extend(self.child_event("message.updated", message))
            for part in message["parts"]:
                out.extend(self.child_event("message.part.updated", {"part": part}))
            error = message["info"].get("error")
            if error and self.is_armed and message["info"]["role"] == "assistant":
                out.extend(self.child_event("session.error", {"error": error}))
        return out

    def _message(self, out: Output, info: Mapping[str, Any]) -> None:
        if info.get("role") == "user":
            self.is_armed = self.is_armed or info["id"] == self._message_id
            return
        if not self.is_armed or info["id"] in self._assistants:
            return
        if info.get("summary") is True:
            self._summary(out, info)
            return
        self._assistants.add(info["id"])

    def _summary(self, out: Output, info: Mapping[str, Any]) -> None:
        """The history is compacted, by a model request whose steps are not shown."""
        if info["id"] not in self._summaries:
            self._summaries.add(info["id"])
            out.drafts.append(Draft("agent.thread_context_compacted"))
        failed = self.failure.get("name") if self.failure is not None else None
        if failed == "ContextOverflowError" and not info.get("error"):
            self.failure = None  # that is why the history is compacted: the turn goes on
        is_over = (info.get("time") or {}).get("completed") is not None
        if is_over and self._requests.has_ended:
            self._end_request(out)
            self._requests.start_next(out)

    def _part(self, out: Output, part: Mapping[str, Any]) -> None:
        if part["messageID"] not in self._assistants or part["id"] in self._finished_parts:
            return
        kind = part["type"]
        if kind in {"text", "reasoning"} and not part.get("synthetic"):
            has_words = bool(str(part.get("text") or "").strip())
            self.has_text |= kind == "text" and has_words
            self.has_thought |= kind == "reasoning" and has_words
            self._texts.update(out, part)
            self._show_calls(out)
        elif kind == "tool":
            self._tool(out, part)
        elif kind == "step-start":
            self._finished_parts.add(part["id"])  # it may be reported again after a gap
            self.has_text = self.has_thought = False
            self._step_start(out)
        elif kind == "step-finish":
            self._step_finish(out, part)

    def _show_calls(self, out: Output, *, is_request_over: bool = False) -> None:
        """Emit the calls that waited for the text before them: it may end after they began to run."""
        if not self._texts.has_open:
            self._calls.show(out, is_request_over=is_request_over)

    # -- tools --------------------------------------------------------------------------------------

    def _tool(self, out: Output, part: Mapping[str, Any]) -> None:
        state, key = part["state"], (part["messageID"], part["callID"])
        if state["status"] == "pending" or self._calls.is_closed(part["id"]):
            return
        call = self.open_calls.get(key)
        if call is None:
            call = self._calls.add(key, part["id"], part["tool"], state.get("input") or {})
            self._requests.note_call()
            self._show_calls(out)
        if state["status"] in _TOOL_ENDED:
            self._finished_parts.add(part["id"])
            self._close_call(out, call, *result_of(call, state))

    def _permission(self, properties: Mapping[str, Any]) -> None:
        asking = properties.get("tool") or {}
        call_id = asking.get("callID")
        key = (asking.get("messageID", ""), call_id) if call_id else NO_CALL
        self._calls.note_permission(key, properties["id"])

    def _close_call(
        self, out: Output, call: OpenCall, content: Sequence[Mapping[str, Any]], is_error: bool
    ) -> None:
        self._end_request(out)
        self._calls.close(out, call, content, is_error)

    # -- steps: a model request each, as opencode reports it ----------------------------------------

    def _step_start(self, out: Output) -> None:
        if self._is_step_open and self._requests.has_waiting:
            # The step before was given up without an end: the child tries again.
            self._end_request(out)
        self._requests.start_next(out)
        self._is_step_open = True
        if not self._requests.is_open:
            self._requests.start_unreported(out)

    def _step_finish(self, out: Output, part: Mapping[str, Any]) -> None:
        self._finished_parts.add(part["id"])
        self.is_cut = part.get("reason") == "length"
        if part.get("reason") in {"content-filter", "refusal"}:
            self.is_refused = True
        self._is_step_open = False
        self._has_ended_step, self._has_spoken = True, self._has_spoken or self.has_text
        if self._requests.is_open:
            self._requests.note_step_end(part)
            self._end_request(out)
        self._requests.start_next(out)

    def _error(self, error: Mapping[str, Any]) -> None:
        if error.get("name") == "ContentFilterError":
            self.is_refused = True
        # The first error is the cause; a second one repeats it with a stack trace.
        elif self.failure is None:
            self.failure = error

    # -- pauses and ends ----------------------------------------------------------------------------

    def pause(self) -> Output:
        """All calls of a model request are known: end it, and show those that need the client."""
        out = Output()
        self._end_request(out)
        return out

    def settle(self, text: str = INTERRUPTED_TEXT) -> Output:
        """The turn is over: every open call gets an error result, every request its end."""
        out = Output()
        self._end_request(out, is_cut=True)
        for call in list(self.open_calls.values()):
            self._close_call(out, call, [{"type": "text", "text": text}], is_error=True)
        while self._requests.has_waiting:
            self._requests.start_next(out)
            self._end_request(out, is_cut=True)
        self._calls.close_granted(out)
        return out

    def _end_request(self, out: Output, *, is_cut: bool = False) -> None:
        self._texts.void_open()
        self._show_calls(out, is_request_over=True)
        self._requests.end(out, is_cut=is_cut)


def is_of_abort(event: ChildEvent) -> bool:
    """Return whether an abort made the event: a cut text, or an aborted call, which the turn's end closes."""
    if event.type != "message.part.updated":
        return event.type == "message.part.delta"
    part = event.properties["part"]
    is_aborted = part["type"] == "tool" and part["state"]["status"] == "error"
    return is_aborted or part["type"] in {"text", "reasoning"}
