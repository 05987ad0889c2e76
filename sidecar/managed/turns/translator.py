"""opencode's events of one turn become the API's events. Pure: no clock, no store, no sockets.

What has to be right here, each point a bug of servers before us:
- text and reasoning are kept apart, and nothing of either is lost (`sidecar.managed.turns.text_parts`);
- one `agent.tool_use` per call, when its input is known; its result always comes after the end of the
  model request that made the call, and every call gets exactly one result;
- the end of a step is not the end of the turn.

Model requests are known exactly from the relay (`request_started`, `request_ended`). Its report of an
end overtakes the child's last events of that request, so the end is held back until something that
must come after it: a tool result, the end of a step, the child's word that it tries again or gives up, a
pause, the end of the turn.
For the same reason a start is held back while the child has not reported the end of the step before; a
loaded child lags by whole requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.managed.events.event import Draft
from sidecar.managed.turns.event_builders import (
    Output,
    request_end_draft,
    step_usage,
    tool_result_draft,
    tool_use_draft,
)
from sidecar.managed.turns.text_parts import TextParts
from sidecar.managed.turns.tool_calls import (
    INTERRUPTED_TEXT,
    CallState,
    LoggedCall,
    OpenCall,
    result_of,
)
from sidecar.managed.turns.tool_plan import ToolCall, ToolPlan
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted, Usage
from sidecar.wire.opencode_events import ChildEvent

_NOT_REPEATED = "not run: the runtime restarted, and the model did not repeat the call"
_TOOL_ENDED = frozenset({"completed", "error"})


@dataclass(slots=True)
class _Span:
    event_id: str
    request_id: str | None
    ended: tuple[bool | None, Usage | None] | None = None
    calls: int = 0
    """How many calls its answer has, at the least, as the relay counted them."""
    is_given_up: bool = False
    """The child has said that it tries again."""

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error."""
        return self.ended is not None and self.ended[0] is True


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
        self._plan = plan
        self._message_id = message_id
        self._new_id = new_id
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
        self.open_calls: dict[str, OpenCall] = {}
        """Calls without a result, by opencode's call id."""
        self._granted = list(granted)
        self._texts = TextParts(is_split=is_split, new_id=new_id)
        self._assistants: set[str] = set()
        self._summaries: set[str] = set()
        self._finished_parts: set[str] = set()
        self._closed_calls: set[str] = set()
        self._asked: dict[str, str] = {}
        self._span: _Span | None = None
        self._waiting: deque[_Span] = deque()
        """Requests whose news overtook the child's: they start when the child is that far."""
        self._is_step_open = False
        self._has_relay_news = False
        self._held_tools: list[OpenCall] = []
        self.has_asked_model = False
        """Whether a model request has begun."""
        self.calls_seen = 0
        """How many calls the model has made so far."""
        self._calls_before = 0
        """How many of them before the current request."""

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
        return self.has_answer or self._has_relay_news

    @property
    def is_request_over(self) -> bool:
        """Whether the model has said all it will say before tools answer."""
        span = self._span
        return span is None or span.request_id is None or span.ended is not None

    @property
    def is_missing_calls(self) -> bool:
        """Whether the current request made calls of which the child has not reported yet."""
        return self._span is not None and self.calls_seen - self._calls_before < self._span.calls

    @property
    def has_held_calls(self) -> bool:
        """Whether calls that need the client were not shown yet, see `pause`."""
        return any(tool.needs_client for tool in self._held_tools)

    def take_stray_requests(self) -> list[str]:
        """Return, once, the permission requests that belong to no call."""
        stray = self._asked.pop("", None)
        return [] if stray is None else [stray]

    # -- the relay's news -------------------------------------------------------------------------

    def request_started(self, request_id: str) -> Output:
        """A model request of this session was forwarded to the gateway."""
        out = Output()
        self._has_relay_news = True
        self._waiting.append(_Span(self._new_id(), request_id))
        if not self._is_step_open:
            self._start_waiting(out)
        return out

    def request_ended(
        self, request_id: str, *, is_error: bool | None, usage: Usage | None, calls: int = 0
    ) -> Output:
        """It ended. Nothing is emitted yet, see the module's docstring."""
        out = Output()
        for span in (self._span, *self._waiting):
            if span is not None and span.request_id == request_id:
                span.ended, span.calls = (is_error, usage), calls
        if self._span is not None and self._span.is_given_up:
            self._close_failed(out)
        return out

    def attempt_failed(self) -> Output:
        """The child says that the request failed and that it tries again."""
        out = Output()
        if self._span is not None:
            self._span.is_given_up = True
            if self._span.request_id is None:
                self._span.ended = (True, Usage())
            self._close_failed(out)
        return out

    def _close_failed(self, out: Output) -> None:
        """End the request if it failed. What it left half-said is void: its parts never end."""
        if self._span is not None and self._span.has_failed:
            self._is_step_open = False
            self._end_span(out)
            self._start_waiting(out)

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
        if is_over and self._span is not None and self._span.ended is not None:
            self._end_span(out)
            self._start_waiting(out)

    def _part(self, out: Output, part: Mapping[str, Any]) -> None:
        if part["messageID"] not in self._assistants or part["id"] in self._finished_parts:
            return
        kind = part["type"]
        if kind in {"text", "reasoning"} and not part.get("synthetic"):
            has_words = bool(str(part.get("text") or "").strip())
            self.has_text |= kind == "text" and has_words
            self.has_thought |= kind == "reasoning" and has_words
            self._texts.update(out, part)
            self._release_tools(out)
        elif kind == "tool":
            self._tool(out, part)
        elif kind == "step-start":
            self._finished_parts.add(part["id"])  # it may be reported again after a gap
            self.has_text = self.has_thought = False
            self._step_start(out)
        elif kind == "step-finish":
            self._step_finish(out, part)

    def _release_tools(self, out: Output, *, is_request_over: bool = False) -> None:
        """Emit the calls that waited for the text before them: it may end after they began to run.

        A call that the client has to answer waits for the end of the request: the client could answer
        before it, and results come after their request.
        """
        if self._texts.has_open:
            return
        held = [t for t in self._held_tools if t.needs_client and not is_request_over]
        out.drafts += [tool_use_draft(tool) for tool in self._held_tools if tool not in held]
        self._held_tools = held

    # -- tools --------------------------------------------------------------------------------------

    def _tool(self, out: Output, part: Mapping[str, Any]) -> None:
        state, call_id = part["state"], part["callID"]
        if state["status"] == "pending" or call_id in self._closed_calls:
            return
        tool = self.open_calls.get(call_id)
        if tool is None:
            call = self._plan.describe(part["tool"], state.get("input") or {})
            repeated = self._take_granted(call)
            event_id = repeated.event_id if repeated is not None else self._new_id()
            tool = OpenCall(event_id, call_id, call, self._asked.pop(call_id, None))
            self.open_calls[call_id] = tool
            self.calls_seen += 1
            if repeated is not None:
                tool.state = CallState.GRANTED
            else:
                self._held_tools.append(tool)
                self._release_tools(out)
        if state["status"] in _TOOL_ENDED:
            self._finished_parts.add(part["id"])
            self._close_tool(out, tool, *result_of(tool, state))

    def _take_granted(self, call: ToolCall) -> LoggedCall | None:
        """Return the call, confirmed before a restart, that the model now repeats."""
        for granted in self._granted:
            is_same = (granted.kind, granted.name, granted.server, granted.input) == (
                call.kind,
                call.name,
                call.server,
                call.input,
            )
            if is_same:
                self._granted.remove(granted)
                return granted
        return None

    def _permission(self, properties: Mapping[str, Any]) -> None:
        call_id = (properties.get("tool") or {}).get("callID", "")
        tool = self.open_calls.get(call_id)
        if tool is not None:
            tool.permission_id = properties["id"]
        else:
            self._asked[call_id] = properties["id"]

    def _close_tool(
        self, out: Output, tool: OpenCall, content: Sequence[Mapping[str, Any]], is_error: bool
    ) -> None:
        self._end_span(out)
        self.open_calls.pop(tool.call_id, None)
        self._closed_calls.add(tool.call_id)
        if tool.call.kind == "custom" and tool.state is CallState.ANSWERED:
            return  # the client's own event is the result
        out.drafts.append(tool_result_draft(tool.event_id, tool.call.kind, content, is_error))

    def _step_start(self, out: Output) -> None:
        if self._is_step_open and self._waiting:
            # The step before was given up without an end: the child tries again.
            self._end_span(out)
        self._start_waiting(out)
        self._is_step_open = True
        if self._span is None:
            # The relay does not report it; or it is out of step with the child, and has counted the tokens.
            counted = (False, Usage()) if self._has_relay_news else None
            self._start_span(out, _Span(self._new_id(), None, counted))

    def _step_finish(self, out: Output, part: Mapping[str, Any]) -> None:
        self._finished_parts.add(part["id"])
        self.is_cut = part.get("reason") == "length"
        if part.get("reason") in {"content-filter", "refusal"}:
            self.is_refused = True
        self._is_step_open = False
        self._has_ended_step, self._has_spoken = True, self._has_spoken or self.has_text
        if self._span is not None:
            is_error, usage = self._span.ended or (False, None)
            self._span.ended = (is_error, usage or step_usage(part))
            self._end_span(out)
        self._start_waiting(out)

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
        self._end_span(out)
        return out

    def settle(self, text: str = INTERRUPTED_TEXT) -> Output:
        """The turn is over: every open call gets an error result, every request its end."""
        out = Output()
        self._end_span(out, cut=True)
        for tool in list(self.open_calls.values()):
            self._close_tool(out, tool, [{"type": "text", "text": text}], is_error=True)
        while self._waiting:
            self._start_waiting(out)
            self._end_span(out, cut=True)
        for granted in self._granted:
            content = [{"type": "text", "text": _NOT_REPEATED}]
            draft = tool_result_draft(granted.event_id, granted.kind, content, is_error=True)
            out.drafts.append(draft)
        return out

    def _start_waiting(self, out: Output) -> None:
        """Start the next request, if none is open."""
        if self._waiting and self._span is None:
            self._start_span(out, self._waiting.popleft())

    def _start_span(self, out: Output, span: _Span) -> None:
        self._span = span
        self._calls_before = self.calls_seen
        self.has_asked_model = True
        out.drafts.append(Draft("span.model_request_start", {}, span.event_id))

    def _end_span(self, out: Output, *, cut: bool = False) -> None:
        self._texts.void_open()
        self._release_tools(out, is_request_over=True)
        span, self._span = self._span, None
        if span is None:
            return
        is_error, usage = span.ended or ((None if cut else False), None)
        used = usage or Usage()
        out.used.append(used)
        out.drafts.append(request_end_draft(span.event_id, is_error=is_error, usage=used))


def is_of_abort(event: ChildEvent) -> bool:
    """Return whether an abort made the event: a cut text, or an aborted call, which the turn's end closes."""
    if event.type != "message.part.updated":
        return event.type == "message.part.delta"
    part = event.properties["part"]
    is_aborted = part["type"] == "tool" and part["state"]["status"] == "error"
    return is_aborted or part["type"] in {"text", "reasoning"}
