"""One turn: from an accepted user message to its one terminal event, whatever dies in between.

A turn is a task with an inbox. Everything that happens (the child's events, the relay's, the client's
answers, losses) is put into the inbox without blocking the sender; the task takes what is there,
translates, and commits under the session's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.errors import ChildError, ChildUnavailableError, SidecarError
from sidecar.managed import asks, failures
from sidecar.managed.asks import Asks
from sidecar.managed.child_sessions import ChildSession, ChildSessions, prompt_parts
from sidecar.managed.custom_tools import CustomTools
from sidecar.managed.drafts import Output
from sidecar.managed.event_log import Draft
from sidecar.managed.failures import Failure, TurnFailedError
from sidecar.managed.resume import LoggedCall, Resume
from sidecar.managed.translate import TurnTranslator
from sidecar.managed.turn_items import (
    REFUSED,
    ChildLost,
    ClientAnswer,
    InboxItem,
    Interrupt,
    Outcome,
    RequestEnded,
    RequestStarted,
    Stopping,
    failed,
)
from sidecar.naming import ModelRef
from sidecar.opencode.events import ChildEvent, ChildGap

if TYPE_CHECKING:
    from sidecar.managed.actor import SessionActor

_log = structlog.get_logger(__name__)

PAUSE_QUIET_SECONDS = 0.15
"""Calls of one model request arrive one by one; after this much quiet they are asked about together."""
ABORT_WAIT_SECONDS = 10.0
"""Bound for opencode to confirm an abort; it takes 0.1 s."""

_PREPARATION_RETRIES_SECONDS = (0.1, 0.3, 1.0)
"""Pauses before the child is asked again for what must be there before a prompt: its death is noticed
within these, and then its next boot is waited for."""


_CONVERSATION_LOST = Failure(
    "unknown_error",
    "opencode no longer has this conversation (its data was lost, or somebody deleted its session); "
    "create a new session",
    "terminal",
)


class _Detached(Exception):  # noqa: N818  # a way out, not an error
    """The task ends and the turn does not: it waits for the client, or for the next start."""


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
        watchdog_seconds: float,
        retry_notice_seconds: float,
    ) -> None:
        self._actor = actor
        self._child_sessions = child_sessions
        self._custom_tools = custom_tools
        self._content = resume.content if resume is not None else content
        self._resume = resume
        self._message_id = message_id
        self._max_seconds = max_seconds
        self._watchdog_seconds = watchdog_seconds
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
        self._asks = Asks(
            translator=self._translator,
            custom_tools=custom_tools,
            session_id=actor.record.id,
        )

    @property
    def is_paused(self) -> bool:
        """Whether the turn waits for the client."""
        return bool(self._actor.record.turn and self._actor.record.turn.blocked)

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client, by event id."""
        return self._asks.waiting_calls()

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
            try:
                await child.prompt(
                    message_id=self._message_id,
                    model=ModelRef.parse(record.model_ref),
                    parts=prompt_parts(self._content),
                    system=self._actor.system,
                    variant=(record.agent["model"].get("effort") or {}).get("type"),
                )
                return await self._consume(child)
            except (SidecarError, sqlite3.Error) as error:
                if isinstance(error, ChildError) and error.upstream_status == 404:
                    raise TurnFailedError(_CONVERSATION_LOST) from error
                # We give up on the turn: opencode must not go on with it behind our back.
                with contextlib.suppress(SidecarError):
                    await child.abort()
                raise

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
        return max(0.0, min(self._watchdog_seconds, self._deadline - now))

    def _note_progress(self) -> None:
        """Further calls of the same request may follow for a while."""
        progress = (self._translator.calls_seen, self._translator.is_request_over)
        if progress != self._progress:
            self._progress = progress
            self._quiet_at = asyncio.get_running_loop().time() + PAUSE_QUIET_SECONDS

    def _can_announce(self) -> bool:
        return self._translator.has_held_calls and self._translator.is_request_over

    def _can_pause(self) -> bool:
        return self._asks.is_all_waiting and self._translator.is_request_over

    async def _on_items(self, child: ChildSession, items: Sequence[InboxItem]) -> Outcome | None:
        out = Output()
        outcome: Outcome | None = None
        for item in items:
            outcome = outcome or await self._take(child, item, out)
        async with self._actor.lock:
            await self._publish(out)
        await self._asks.answer_by_policy(child)
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
                await asks.refuse_sub_agent(child, item)
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
        return REFUSED if self._translator.is_refused else Outcome()

    async def _on_answer(self, child: ChildSession, answer: ClientAnswer) -> None:
        if self._paused_since is not None:
            # The client's time is not the turn's.
            self._deadline += asyncio.get_running_loop().time() - self._paused_since
            self._paused_since = None
        await self._asks.on_answer(child, answer)

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
            await self._actor.pause(out, list(self.waiting_calls()))

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
