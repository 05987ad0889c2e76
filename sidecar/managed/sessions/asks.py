"""Who answers a call that asks: our policy, or the client, or nobody and then it is refused.

opencode refuses every pending call of a session together with the one that is refused. So a denial is
held back while other calls of the same request still wait for the client.
"""

from __future__ import annotations

from sidecar.managed.child.sessions import ChildSession
from sidecar.managed.turns.inputs import ClientAnswer
from sidecar.managed.turns.tool_calls import LoggedCall, OpenTool
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.opencode.custom_tools import CustomResult, CustomTools
from sidecar.wire.opencode_events import ChildEvent

_DENIED = "The user did not allow this call."


class Asks:
    """The open questions of one turn."""

    def __init__(
        self, *, translator: TurnTranslator, custom_tools: CustomTools, session_id: str
    ) -> None:
        self._translator = translator
        self._custom_tools = custom_tools
        self._session_id = session_id

    @property
    def is_all_waiting(self) -> bool:
        """Whether nothing goes on until the client answers."""
        tools = self._translator.open_tools.values()
        return any(map(_waits, tools)) and all(_waits(t) or t.is_denial_held for t in tools)

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client as the log shows them, by event id."""
        return {
            tool.event_id: LoggedCall(
                tool.event_id, tool.call.kind, tool.call.name, tool.call.input, tool.call.server
            )
            for tool in self._translator.open_tools.values()
            if _waits(tool)
        }

    def note_answer(self, answer: ClientAnswer) -> None:
        """The client's answer was accepted; `on_answer` follows when the turn comes to it."""
        for tool in self._translator.open_tools.values():
            tool.is_answered |= tool.event_id == answer.tool_use_id

    async def answer_by_policy(self, child: ChildSession) -> None:
        """Answer what needs no client: calls that policy allows or denies, asks about no call."""
        for tool in self._translator.open_tools.values():
            is_ours = not tool.is_answered and not tool.is_confirmed and not _waits(tool)
            if tool.permission_id is not None and is_ours:
                tool.is_confirmed = True
                if tool.call.policy == "allow" or tool.is_granted:
                    await child.reply_permission(tool.permission_id, "once")
                else:
                    _deny(tool, None)
        if not any(map(_waits, self._translator.open_tools.values())):
            await self._send_denials(child)
        for permission_id in self._translator.take_stray_asks():
            await child.reply_permission(permission_id, "reject", _DENIED)

    async def on_answer(self, child: ChildSession, answer: ClientAnswer) -> None:
        """Pass the client's answer on to the call that waits for it."""
        tools = self._translator.open_tools.values()
        tool = next((t for t in tools if t.event_id == answer.tool_use_id), None)
        if tool is None:
            return
        tool.is_confirmed = True
        if tool.call.kind == "custom":
            result = CustomResult(answer.content, answer.is_error)
            self._custom_tools.answer(self._session_id, tool.call.name, tool.call.input, result)
        elif tool.permission_id is not None and answer.result == "allow":
            await child.reply_permission(tool.permission_id, "once")
        elif tool.permission_id is not None:
            _deny(tool, answer.message)

    async def _send_denials(self, child: ChildSession) -> None:
        for tool in self._translator.open_tools.values():
            if tool.is_denial_held and tool.permission_id is not None:
                tool.is_denial_held = False
                await child.reply_permission(tool.permission_id, "reject", tool.deny_message)


async def refuse_sub_agent(child: ChildSession, event: ChildEvent) -> None:
    """Nobody is asked on behalf of a sub-agent: what its session may not do is refused."""
    if event.type == "permission.asked":
        await child.reply_permission(event.properties["id"], "reject", _DENIED)
    elif event.type == "question.asked":
        await child.reject_question(event.properties["id"])


def _waits(tool: OpenTool) -> bool:
    """Whether the client has to answer before the call can go on."""
    if tool.call.kind == "custom":
        return not tool.is_answered
    return (
        tool.call.policy == "ask"
        and tool.permission_id is not None
        and not tool.is_answered
        and not tool.is_granted
    )


def _deny(tool: OpenTool, message: str | None) -> None:
    tool.deny_message = message or _DENIED
    tool.is_denial_held = True
