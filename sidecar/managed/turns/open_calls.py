"""The tool calls of a turn, from opencode's report of each to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.managed.turns.event_builders import Output, tool_result_draft, tool_use_draft
from sidecar.managed.turns.tool_calls import CallKey, CallState, LoggedCall, OpenCall
from sidecar.managed.turns.tool_plan import ToolCall, ToolPlan

NO_CALL: CallKey = ("", "")
"""In place of a call's key: what belongs to no call."""
_NOT_REPEATED = "not run: the runtime restarted, and the model did not repeat the call"


class OpenCalls:
    """Which calls are open, which of them are not shown yet, and which were granted before a restart.

    Methods with `out` add the events that they lead to. `new_id` makes ids of events.
    """

    def __init__(
        self, *, plan: ToolPlan, new_id: Callable[[], str], granted: Sequence[LoggedCall]
    ) -> None:
        self._plan = plan
        self._new_id = new_id
        self._granted = list(granted)
        self.by_key: dict[CallKey, OpenCall] = {}
        """Calls without a result."""
        self.seen = 0
        """How many calls the model has made so far."""
        self._closed_parts: set[str] = set()
        self._asked: dict[CallKey, str] = {}
        self._held: list[OpenCall] = []

    @property
    def has_held(self) -> bool:
        """Whether calls that need the client were not shown yet, see `show`."""
        return any(call.needs_client for call in self._held)

    def is_closed(self, part_id: str) -> bool:
        """Whether the call that opencode's part shows has its result."""
        return part_id in self._closed_parts

    def add(self, key: CallKey, part_id: str, tool: str, input_: Mapping[str, Any]) -> OpenCall:
        """Take a new call of opencode's tool; return it, unshown unless it was granted before a restart."""
        described = self._plan.describe(tool, input_)
        repeated = self._take_granted(described)
        event_id = repeated.event_id if repeated is not None else self._new_id()
        call = OpenCall(event_id, key, part_id, described, self._asked.pop(key, None))
        self.by_key[key] = call
        self.seen += 1
        if repeated is not None:
            call.state = CallState.GRANTED
        else:
            self._held.append(call)
        return call

    def note_permission(self, key: CallKey, permission_id: str) -> None:
        """opencode asks whether the call may run; with `NO_CALL` it asks about none."""
        call = self.by_key.get(key)
        if call is not None:
            call.permission_id = permission_id
        else:
            self._asked[key] = permission_id

    def take_stray_requests(self) -> list[str]:
        """Return, once, the permission requests that belong to no call."""
        stray = self._asked.pop(NO_CALL, None)
        return [] if stray is None else [stray]

    def show(self, out: Output, *, is_request_over: bool) -> None:
        """Emit the calls that waited for the text before them.

        A call that the client has to answer waits for the end of the request: the client could answer
        before it, and results come after their request.
        """
        held = [call for call in self._held if call.needs_client and not is_request_over]
        out.drafts += [tool_use_draft(call) for call in self._held if call not in held]
        self._held = held

    def close(
        self, out: Output, call: OpenCall, content: Sequence[Mapping[str, Any]], is_error: bool
    ) -> None:
        """Emit the call's result. Where the client has sent it, its own event is the result."""
        self.by_key.pop(call.key, None)
        self._closed_parts.add(call.part_id)
        if call.state is not CallState.ANSWERED:
            draft = tool_result_draft(call.event_id, call.call.kind, content, is_error)
            out.drafts.append(draft)

    def close_granted(self, out: Output) -> None:
        """Emit results for the calls that were granted before a restart and that the model did not repeat."""
        content = [{"type": "text", "text": _NOT_REPEATED}]
        for call in self._granted:
            out.drafts.append(tool_result_draft(call.event_id, call.kind, content, is_error=True))

    def _take_granted(self, call: ToolCall) -> LoggedCall | None:
        """Return the call, granted before a restart, that the model now repeats."""
        wanted = (call.kind, call.name, call.server, call.input)
        for granted in self._granted:
            if (granted.kind, granted.name, granted.server, granted.input) == wanted:
                self._granted.remove(granted)
                return granted
        return None
