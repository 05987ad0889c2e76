"""Decides how each permission request is answered: by policy, by the client, or rejected; and when calls
that need the client are shown to it.

opencode rejects every pending call of a session together with the one that is rejected. So a denial is
held back while other calls of the same model request still wait for the client.
"""

from __future__ import annotations

from collections.abc import Collection

from sidecar.managed.turns.commands import (
    Command,
    GiveToolResult,
    RejectQuestion,
    ReplyPermission,
)
from sidecar.managed.turns.inputs import ClientAnswer
from sidecar.managed.turns.timing import MISSING_CALL_SECONDS, PAUSE_QUIET_SECONDS
from sidecar.managed.turns.tool_calls import CallState, OpenCall
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.wire.opencode_events import ChildEvent

DENIED_TEXT = "The user did not allow this call."


class ShowTime:
    """When the calls that need the client are shown: a while after the last one of their request came."""

    def __init__(self, translator: TurnTranslator) -> None:
        self._translator = translator
        self._progress: tuple[int, bool] = (0, True)
        self._quiet_at = 0.0

    def next(self, now: float) -> float | None:
        """Return when calls are to be shown, or were, in the time of `now`; None when there are none."""
        progress = (self._translator.calls_seen, self._translator.is_request_over)
        if progress != self._progress:
            self._progress = progress
            is_missing = self._translator.is_missing_calls
            self._quiet_at = now + (MISSING_CALL_SECONDS if is_missing else PAUSE_QUIET_SECONDS)
        calls = self._translator.open_calls.values()
        has_calls = self._translator.has_held_calls or all_wait(calls)
        return self._quiet_at if has_calls and self._translator.is_request_over else None


def all_wait(calls: Collection[OpenCall]) -> bool:
    """Return whether nothing goes on until the client answers."""
    return any(call.waits_for_client for call in calls) and all(
        call.waits_for_client or call.state is CallState.DENIAL_HELD for call in calls
    )


def take_answer(call: OpenCall, answer: ClientAnswer) -> list[Command]:
    """Note the client's answer; return the command that passes it on, unless it is a denial to be held."""
    if call.call.kind == "custom":
        call.state = CallState.ANSWERED
        content, is_error = answer.content, answer.is_error
        return [GiveToolResult(call.call.name, call.call.input, content, is_error)]
    if call.permission_id is None:
        return []
    if answer.result == "deny":
        _hold_denial(call, answer.message)
        return []
    call.state = CallState.ALLOWED
    return [ReplyPermission(call.permission_id, "once")]


def answer_by_policy(calls: Collection[OpenCall]) -> list[Command]:
    """Return the answers that need no client, and the held denials once no call waits any more."""
    replies: list[Command] = []
    for call in calls:
        is_open = call.state in {CallState.UNDECIDED, CallState.GRANTED}
        if call.permission_id is None or not is_open or call.waits_for_client:
            continue
        if call.call.policy == "allow" or call.state is CallState.GRANTED:
            call.state = CallState.ALLOWED
            replies.append(ReplyPermission(call.permission_id, "once"))
        else:
            _hold_denial(call, None)
    if not any(call.waits_for_client for call in calls):
        replies += _release_denials(calls)
    return replies


def refuse_sub_agent(event: ChildEvent) -> list[Command]:
    """Return the refusal of what a sub-agent asks: the client never sees its session."""
    if event.type == "permission.asked":
        return [ReplyPermission(event.properties["id"], "reject", DENIED_TEXT)]
    if event.type == "question.asked":
        return [RejectQuestion(event.properties["id"])]
    return []


def _hold_denial(call: OpenCall, message: str | None) -> None:
    call.state = CallState.DENIAL_HELD
    call.deny_message = message or DENIED_TEXT


def _release_denials(calls: Collection[OpenCall]) -> list[Command]:
    replies: list[Command] = []
    for call in calls:
        if call.state is CallState.DENIAL_HELD and call.permission_id is not None:
            call.state = CallState.DENIED
            replies.append(ReplyPermission(call.permission_id, "reject", call.deny_message))
    return replies
