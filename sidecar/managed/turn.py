"""One turn: from an accepted user message to its one terminal event, whatever dies in between.

A turn is a task with an inbox. Everything that happens (the child's events, the relay's, the client's
answers, losses) is put into the inbox without blocking the sender; the task takes what is there,
translates, and commits under the session's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import structlog

from sidecar.errors import ChildUnavailableError, SidecarError
from sidecar.managed import failures
from sidecar.managed.child_sessions import ChildSession, ChildSessions, prompt_parts
from sidecar.managed.custom_tools import CustomResult, CustomTools
from sidecar.managed.drafts import OpenTool, Output, Usage
from sidecar.managed.event_log import Draft
from sidecar.managed.failures import Failure, TurnFailedError
from sidecar.managed.resume import LoggedCall, Resume
from sidecar.managed.translate import TurnTranslator
from sidecar.naming import ModelRef
from sidecar.opencode.events import ChildEvent, ChildGap

if TYPE_CHECKING:
    from sidecar.managed.actor import SessionActor

_log = structlog.get_logger(__name__)

PAUSE_QUIET_SECONDS = 0.15
"""Calls of one model request arrive one by one; after this much quiet they are asked about together."""
WATCHDOG_SECONDS = 30.0
"""Silence after which opencode is asked whether it still works on the session."""
ABORT_WAIT_SECONDS = 10.0
"""Bound for opencode to confirm an abort; it takes 0.1 s."""

_PREPARATION_RETRIES_SECONDS = (0.1, 0.3, 1.0)
"""Pauses before the child is asked again for what must be there before a prompt: its death is noticed
within these, and then its next boot is waited for."""

_DENIED = "The user did not allow this call."


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """The relay forwards a model request of this session."""

    request_id: str


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """It is over. `is_error` is None for one that was cut."""

    request_id: str
    is_error: bool | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The client wants the turn to stop."""


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """The client's answer to a call: a confirmation, or the result of a custom tool."""

    tool_use_id: str
    result: Literal["allow", "deny"]
    message: str | None = None
    content: Sequence[Mapping[str, Any]] = ()
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ChildLost:
    """The child died or is being replaced."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The sidecar is being stopped and waits no longer."""


InboxItem: TypeAlias = (
    ChildEvent
    | ChildGap
    | RequestStarted
    | RequestEnded
    | Interrupt
    | ClientAnswer
    | ChildLost
    | Stopping
)


class _Detached(Exception):  # noqa: N818  # a way out, not an error
    """The task ends and the turn does not: it waits for the client, or for the next start."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended."""

    stop_reason: Mapping[str, Any] = field(default_factory=lambda: {"type": "end_turn"})
    failure: Failure | None = None
    stop_details: Mapping[str, Any] | None = None
    settle_text: str = "interrupted before completion"


def failed(failure: Failure) -> Outcome:
    """The turn is dead, the session lives on."""
    return Outcome({"type": "retries_exhausted"}, failure)


_REFUSED = Outcome(
    {"type": "refusal"},
    stop_details={"type": "refusal", "category": None, "explanation": None},
)


class Turn:
    """Runs one prompt. `put` may be called by anyone on the loop at any time."""

    def __init__(
        self,
        *,
        actor: SessionActor,
        child_sessions: ChildSessions,
        custom_tools: CustomTools,
        content: Sequence[Mapping[str, Any]],
        resume: Resume | None,
        message_id: str,
        is_split: bool,
        max_seconds: float,
        retry_notice_seconds: float,
    ) -> None:
        self._actor = actor
        self._child_sessions = child_sessions
        self._custom_tools = custom_tools
        self._content = resume.content if resume is not None else content
        self._resume = resume
        self._message_id = message_id
        self._max_seconds = max_seconds
        self._retry_notice_seconds = retry_notice_seconds
        self.done = asyncio.Event()
        self._inbox: asyncio.Queue[InboxItem] = asyncio.Queue()
        self._preparation: asyncio.Timeout | None = None
        self._is_sent = False
        self._is_interrupted = False
        self._withdrawn_by: Interrupt | Stopping | None = None
        self._paused_since: float | None = None
        self._is_rescheduled = False
        self._deadline = 0.0
        self._progress: tuple[int, bool] = (0, True)
        self._quiet_at = 0.0
        self._translator = TurnTranslator(
            plan=actor.plan,
            message_id=message_id,
            granted=resume.granted if resume is not None else (),
            is_split=is_split,
        )

    @property
    def is_paused(self) -> bool:
        """Whether the turn waits for the client."""
        return bool(self._actor.record.turn and self._actor.record.turn.blocked)

    @property
    def waiting_tools(self) -> list[OpenTool]:
        """The calls that wait for the client."""
        return [tool for tool in self._translator.open_tools.values() if _waits(tool)]

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return them as the log shows them, by event id."""
        return {
            tool.event_id: LoggedCall(
                tool.event_id, tool.call.kind, tool.call.name, tool.call.input, tool.call.server
            )
            for tool in self.waiting_tools
        }

    @property
    def is_preparing(self) -> bool:
        """Whether the prompt was not sent yet."""
        return not self._is_sent

    def put(self, item: InboxItem) -> None:
        """Tell the turn what happened."""
        if isinstance(item, ChildLost) and self.is_preparing:
            return  # nothing is lost; the next boot gets the prompt
        self._inbox.put_nowait(item)
        if isinstance(item, Interrupt | Stopping) and self._preparation is not None:
            self._preparation.reschedule(asyncio.get_running_loop().time())
            self._preparation, self._withdrawn_by = None, item

    async def run(self) -> None:
        """Run to the terminal event, or until a paused turn loses its child."""
        self._deadline = asyncio.get_running_loop().time() + self._max_seconds
        try:
            outcome = await self._execute()
        except _Detached:
            self._custom_tools.clear(self._actor.record.id)
            self._actor.detach(self)
            return
        except TurnFailedError as error:
            outcome = failed(error.failure)
        except SidecarError as error:
            if self.is_preparing and not self._actor.may_start():
                self._actor.detach(self)  # not sent yet: the next start of the sidecar does it
                return
            outcome = failed(Failure("unknown_error", error.message))
        except Exception as error:
            _log.exception("turn crashed", session=self._actor.record.id)
            outcome = failed(
                Failure("unknown_error", f"the sidecar failed: {type(error).__name__}")
            )
        await self._finish(outcome)

    async def _execute(self) -> Outcome:
        if self._resume is not None and self._resume.drafts:
            async with self._actor.lock:
                await self._actor.commit(self._resume.drafts)
        try:
            return await self._prepare_and_run()
        except TimeoutError:
            if self._withdrawn_by is None:
                raise
            if isinstance(self._withdrawn_by, Stopping):
                raise _Detached from None
            return Outcome()

    async def _prepare_and_run(self) -> Outcome:
        # Until the prompt is sent, an interrupt ends the preparation by letting this scope expire.
        async with asyncio.timeout(None) as preparation:
            self._preparation = preparation
            await self._prepare_directory()
            for pause in _PREPARATION_RETRIES_SECONDS:
                try:
                    return await self._execute_in_child(preparation)
                except ChildUnavailableError:
                    if not self.is_preparing or not self._actor.may_start():
                        raise
                    await asyncio.sleep(pause)
            return await self._execute_in_child(preparation)

    async def _prepare_directory(self) -> None:
        """Clone the session's repositories. A failure is told; the turn goes on without them."""
        missing = await self._child_sessions.prepare_directory(self._actor.record)
        if missing:
            async with self._actor.lock:
                await self._actor.commit([failure.draft() for failure in missing])

    async def _execute_in_child(self, preparation: asyncio.Timeout) -> Outcome:
        record = self._actor.record
        async with self._child_sessions.open(record, self.put) as child:
            await self._actor.mark_prompted(child.session_id)
            preparation.reschedule(None)
            self._preparation, self._is_sent = None, True
            await child.prompt(
                message_id=self._message_id,
                model=ModelRef.parse(record.model_ref),
                parts=prompt_parts(self._content),
                system=self._actor.system,
                variant=(record.agent["model"].get("effort") or {}).get("type"),
            )
            return await self._consume(child)

    async def _consume(self, child: ChildSession) -> Outcome:
        while True:
            items = await self._next_items()
            if not items:
                outcome = await self._on_silence(child)
            else:
                outcome = await self._on_items(child, items)
            if outcome is not None:
                return outcome

    async def _next_items(self) -> list[InboxItem]:
        """Wait for something to happen; return all that is there, or nothing after a silence."""
        try:
            async with asyncio.timeout(self._patience()):
                items = [await self._inbox.get()]
        except TimeoutError:
            return []
        while not self._inbox.empty():
            items.append(self._inbox.get_nowait())
        return items

    def _patience(self) -> float | None:
        if self.is_paused:
            return None
        now = asyncio.get_running_loop().time()
        if self._can_pause() or self._can_announce():
            return max(0.0, self._quiet_at - now)
        return max(0.0, min(WATCHDOG_SECONDS, self._deadline - now))

    def _note_progress(self) -> None:
        """Further calls of the same request may follow for a while."""
        progress = (self._translator.calls_seen, self._translator.is_request_over)
        if progress != self._progress:
            self._progress = progress
            self._quiet_at = asyncio.get_running_loop().time() + PAUSE_QUIET_SECONDS

    def _can_announce(self) -> bool:
        return self._translator.has_held_calls and self._translator.is_request_over

    def _can_pause(self) -> bool:
        tools = self._translator.open_tools.values()
        is_quiet = all(_waits(tool) or tool.is_denial_held for tool in tools)
        return is_quiet and any(map(_waits, tools)) and self._translator.is_request_over

    async def _on_items(self, child: ChildSession, items: Sequence[InboxItem]) -> Outcome | None:
        out = Output()
        outcome: Outcome | None = None
        for item in items:
            outcome = outcome or await self._take(child, item, out)
        async with self._actor.lock:
            await self._publish(out)
        await self._answer_asks(child)
        self._note_progress()
        return outcome

    async def _take(self, child: ChildSession, item: InboxItem, out: Output) -> Outcome | None:
        match item:
            case RequestStarted(request_id):
                self._note_running(out)
                _extend(out, self._translator.request_started(request_id))
            case RequestEnded(request_id, is_error, usage):
                ended = self._translator.request_ended(request_id, is_error=is_error, usage=usage)
                _extend(out, ended)
            case ChildEvent() if item.session_id != child.session_id:
                await self._on_sub_agent(child, item)
            case ChildEvent():
                return await self._on_child_event(child, item, out)
            case ChildGap():
                return await self._repair(child, out)
            case Stopping():
                if self.is_paused:
                    raise _Detached
                text = "the sidecar is being stopped; the turn was cut"
                return failed(Failure("unknown_error", text))
            case ChildLost(reason):
                if self.is_paused:
                    raise _Detached
                return failed(Failure("unknown_error", f"opencode {reason}; the turn was cut"))
            case Interrupt():
                return await self._interrupt(child, out)
            case ClientAnswer():
                await self._on_answer(child, item)
        return None

    async def _on_child_event(
        self, child: ChildSession, event: ChildEvent, out: Output
    ) -> Outcome | None:
        if event.type == "session.status":
            return self._on_status(event.properties["status"], out)
        if event.type == "question.asked":
            await child.reject_question(event.properties["id"])
            return None
        _extend(out, self._translator.child_event(event.type, event.properties))
        return None

    def _on_status(self, status: Mapping[str, Any], out: Output) -> Outcome | None:
        if not self._translator.is_armed:
            return None
        if status["type"] == "idle":
            return self._verdict()
        record = self._actor.record
        if status["type"] == "retry" and not self._is_rescheduled:
            wait = float(status.get("next") or 0) / 1000 - self._actor.wall_clock()
            if wait >= self._retry_notice_seconds:
                self._is_rescheduled = True
                record.status = "rescheduling"
                out.drafts += [
                    Draft("session.status_rescheduled"),
                    self._actor.thread_draft("rescheduled"),
                ]
        elif status["type"] == "busy":
            self._note_running(out)
        return None

    def _note_running(self, out: Output) -> None:
        """The wait for a retry is over; the relay may know it before the child says so."""
        if self._is_rescheduled:
            self._is_rescheduled = False
            self._actor.record.status = "running"
            out.drafts += self._actor.running_drafts()

    def _verdict(self) -> Outcome:
        failure = self._translator.failure
        if self._is_interrupted:
            return Outcome()
        if failure is not None:
            if failure.get("name") == "MessageAbortedError":
                text = "opencode aborted the turn, which nobody asked for"
                return failed(Failure("unknown_error", text))
            return failed(failures.from_child(failure))
        return _REFUSED if self._translator.is_refused else Outcome()

    async def _on_sub_agent(self, child: ChildSession, event: ChildEvent) -> None:
        """Nobody is asked on behalf of a sub-agent: what its session may not do is refused."""
        if event.type == "permission.asked":
            await child.reply_permission(event.properties["id"], "reject", _DENIED)
        elif event.type == "question.asked":
            await child.reject_question(event.properties["id"])

    async def _answer_asks(self, child: ChildSession) -> None:
        """Answer what needs no client: calls that policy allows or denies, asks about no call."""
        for tool in self._translator.open_tools.values():
            if tool.permission_id is not None and not tool.is_confirmed and not _waits(tool):
                tool.is_confirmed = True
                if tool.call.policy == "allow" or tool.is_granted:
                    await child.reply_permission(tool.permission_id, "once")
                else:
                    _deny(tool, None)
        if not any(map(_waits, self._translator.open_tools.values())):
            await self._send_denials(child)
        for permission_id in self._translator.take_stray_asks():
            await child.reply_permission(permission_id, "reject", _DENIED)

    async def _send_denials(self, child: ChildSession) -> None:
        for tool in self._translator.open_tools.values():
            if tool.is_denial_held and tool.permission_id is not None:
                tool.is_denial_held = False
                await child.reply_permission(tool.permission_id, "reject", tool.deny_message)

    async def _on_answer(self, child: ChildSession, answer: ClientAnswer) -> None:
        if self._paused_since is not None:
            # The client's time is not the turn's.
            self._deadline += asyncio.get_running_loop().time() - self._paused_since
            self._paused_since = None
        tools = self._translator.open_tools.values()
        tool = next((t for t in tools if t.event_id == answer.tool_use_id), None)
        if tool is None:
            return
        tool.is_confirmed = True
        if tool.call.kind == "custom":
            result = CustomResult(answer.content, answer.is_error)
            self._custom_tools.answer(
                self._actor.record.id, tool.call.name, tool.call.input, result
            )
        elif tool.permission_id is not None and answer.result == "allow":
            await child.reply_permission(tool.permission_id, "once")
        elif tool.permission_id is not None:
            _deny(tool, answer.message)

    async def _on_silence(self, child: ChildSession) -> Outcome | None:
        if self._can_pause():
            await self._pause()
            return None
        if self._can_announce():
            async with self._actor.lock:
                await self._publish(self._translator.pause())
            return None
        if asyncio.get_running_loop().time() >= self._deadline:
            await child.abort()
            text = f"the turn took longer than {self._max_seconds:g} s (SIDECAR_TURN_MAX_SECONDS)"
            return failed(Failure("unknown_error", text))
        try:
            if await child.is_busy():
                return None
        except ChildUnavailableError:
            # Slow is not dead. If it is dead, the supervisor says so.
            return None
        out = Output()
        outcome = await self._repair(child, out)
        async with self._actor.lock:
            await self._publish(out)
        return outcome

    async def _repair(self, child: ChildSession, out: Output) -> Outcome | None:
        """Events were missed: read the truth from the messages and the status."""
        is_busy = await child.is_busy()
        for message in await child.messages():
            _extend(out, self._translator.child_event("message.updated", message))
            for part in message["parts"]:
                _extend(out, self._translator.child_event("message.part.updated", {"part": part}))
            error = message["info"].get("error")
            if error and self._translator.is_armed and message["info"]["role"] == "assistant":
                properties = {"error": error}
                _extend(out, self._translator.child_event("session.error", properties))
        if is_busy:
            return None
        if not self._translator.is_armed and self._translator.failure is None:
            return failed(Failure("unknown_error", "opencode lost the prompt"))
        return self._verdict()

    async def _pause(self) -> None:
        self._paused_since = asyncio.get_running_loop().time()
        async with self._actor.lock:
            out = self._translator.pause()
            await self._actor.pause(out, [tool.event_id for tool in self.waiting_tools])

    async def _interrupt(self, child: ChildSession, out: Output) -> Outcome:
        self._is_interrupted = True
        await child.abort()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + ABORT_WAIT_SECONDS):
                while True:
                    item = await self._inbox.get()
                    if isinstance(item, ChildEvent) and _is_idle(item, child.session_id):
                        break
                    if isinstance(item, ChildLost):
                        break
                    if isinstance(item, RequestEnded):
                        await self._take(child, item, out)
        except TimeoutError:
            _log.warning("abort was not confirmed in time", session=self._actor.record.id)
        return Outcome()

    async def _publish(self, out: Output) -> None:
        self._actor.preview(out.previews)
        if out.drafts or out.used:
            await self._actor.commit(out.drafts, used=out.used)

    async def _finish(self, outcome: Outcome) -> None:
        self._custom_tools.clear(self._actor.record.id)
        async with self._actor.lock:
            out = self._translator.settle(outcome.settle_text)
            await self._actor.end_turn(self, outcome, out)


def _waits(tool: OpenTool) -> bool:
    """Whether the client has to answer before the call can go on."""
    if tool.call.kind == "custom":
        return not tool.is_confirmed
    return (
        tool.call.policy == "ask"
        and tool.permission_id is not None
        and not tool.is_confirmed
        and not tool.is_granted
    )


def _deny(tool: OpenTool, message: str | None) -> None:
    tool.deny_message = message or _DENIED
    tool.is_denial_held = True


def _is_idle(event: ChildEvent, session_id: str) -> bool:
    return (
        event.type == "session.status"
        and event.session_id == session_id
        and event.properties["status"]["type"] == "idle"
    )


def _extend(out: Output, more: Output) -> None:
    out.drafts += more.drafts
    out.previews += more.previews
    out.used += more.used
