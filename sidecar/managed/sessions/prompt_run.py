"""What follows a prompt in one boot of the child: its events, asks, silences, and how it ends.

Everything that happens arrives in the turn's inbox; it is taken in batches, translated, and committed
under the session's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.config import TurnSettings
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.managed.child.sessions import ChildSession
from sidecar.managed.common import timestamps
from sidecar.managed.sessions import asks
from sidecar.managed.sessions.asks import Asks
from sidecar.managed.turns import failures
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import (
    REFUSED,
    ChildLost,
    ClientAnswer,
    Detached,
    Dismissed,
    InboxItem,
    Interrupt,
    Outcome,
    Stopping,
    failed,
)
from sidecar.managed.turns.request_failures import LastRequestFailure
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted
from sidecar.wire.opencode_events import ChildEvent, ChildGap

if TYPE_CHECKING:
    from sidecar.managed.sessions.actor import SessionActor

PAUSE_QUIET_SECONDS = 0.15
"""Calls of one model request arrive one by one; after this much quiet they are asked about together."""
LONE_START_SECONDS = 0.005
"""The start of a model request is stored this much later, or before the next news: at once it would compete
with the request itself."""
BEGIN_WAIT_SECONDS = 5.0
"""How long an interrupt waits for opencode to ask the model, usually 0.1 s; then it aborts all the same."""
ABORT_WAIT_SECONDS = 30.0
"""Bound for opencode to confirm an abort, all together; 0.1 s, under full load seconds."""

_log = structlog.get_logger(__name__)


class PromptRun:
    """Follows one prompt. `deadline` is in the loop's time; the client's time does not count."""

    def __init__(
        self,
        *,
        actor: SessionActor,
        child: ChildSession,
        inbox: asyncio.Queue[InboxItem],
        translator: TurnTranslator,
        asks: Asks,
        settings: TurnSettings,
        deadline: float,
    ) -> None:
        self._actor = actor
        self._child = child
        self._inbox = inbox
        self._translator = translator
        self._asks = asks
        self._settings = settings
        self._deadline = deadline
        self.out = Output()
        """What is not committed yet. When the run ends or fails, it belongs to the end of the turn."""
        self._paused_since: float | None = None
        self._requests = LastRequestFailure()
        self._was_busy = False
        self._is_rescheduled = False
        self._progress: tuple[int, bool] = (0, True)
        self._quiet_at = 0.0

    async def follow(self) -> Outcome:
        """Return how the turn ended.

        Raises Detached when it waits for the client and the child is gone, ChildUnavailableError when
        the prompt was lost before anything came of it, SidecarError when the child refuses something.
        """
        while True:
            items = await self._next_items()
            outcome = await self._on_items(items) if items else await self._on_silence()
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
        if self._actor.is_paused:
            return None
        if self._can_pause() or self._can_announce():
            return max(0.0, self._quiet_at - asyncio.get_running_loop().time())
        if self.out.drafts:
            return LONE_START_SECONDS
        left = self._deadline - asyncio.get_running_loop().time()
        return max(0.0, min(self._settings.watchdog_seconds, left))

    def _note_progress(self) -> None:
        """Further calls of the same request may follow for a while."""
        progress = (self._translator.calls_seen, self._translator.is_request_over)
        if progress != self._progress:
            self._progress = progress
            self._quiet_at = asyncio.get_running_loop().time() + PAUSE_QUIET_SECONDS

    def _has_lone_start(self) -> bool:
        types = [draft.type for draft in self.out.drafts]
        return types == ["span.model_request_start"] and not self.out.previews

    def _can_announce(self) -> bool:
        return self._translator.has_held_calls and self._translator.is_request_over

    def _can_pause(self) -> bool:
        return self._asks.is_all_waiting and self._translator.is_request_over

    # -- what happens -----------------------------------------------------------------------------

    async def _on_items(self, items: Sequence[InboxItem]) -> Outcome | None:
        await self._store()  # a start that waited: text must not be shown before it
        for item in items:
            outcome = await self._take(item)
            if outcome is not None:
                return outcome
        if not self._has_lone_start():
            await self._store()
        await self._asks.answer_by_policy(self._child)
        self._note_progress()
        return None

    async def _take(self, item: InboxItem) -> Outcome | None:
        match item:
            case ModelRequestStarted():
                self._note_running()
                self._requests.started(item)
                self.out.extend(self._translator.request_started(item.request_id))
            case ModelRequestEnded():
                self._requests.ended(item)
                ended = self._translator.request_ended(
                    item.request_id, is_error=item.is_error, usage=item.usage
                )
                self.out.extend(ended)
            case ChildEvent() if item.session_id != self._child.session_id:
                await asks.refuse_sub_agent(self._child, item)
            case ChildEvent():
                return await self._on_child_event(item)
            case ChildGap():
                return await self._repair()
            case Stopping():
                if self._actor.is_paused:
                    raise Detached
                text = "the sidecar is being stopped; the turn was cut"
                return failed(Failure("unknown_error", text))
            case ChildLost(reason):
                return self._on_child_lost(reason)
            case Dismissed():
                with contextlib.suppress(ChildError):
                    await self._child.abort()
                raise Detached
            case Interrupt():
                return await self._interrupt()
            case ClientAnswer():
                await self._on_answer(item)
        return None

    async def _on_child_event(self, event: ChildEvent) -> Outcome | None:
        if event.type == "session.status":
            return await self._on_status(event.properties["status"])
        if event.type == "question.asked":
            await self._child.reject_question(event.properties["id"])
            return None
        self.out.extend(self._translator.child_event(event.type, event.properties))
        return None

    async def _on_status(self, status: Mapping[str, Any]) -> Outcome | None:
        if not self._translator.is_armed:
            return None
        if status["type"] == "idle":
            return await self._on_idle()
        self._was_busy = True
        record = self._actor.record
        if status["type"] == "retry":
            self.out.extend(self._translator.attempt_failed())
        if status["type"] == "retry" and not self._is_rescheduled:
            wait = float(status.get("next") or 0) / 1000 - timestamps.now_us() / 1_000_000
            if wait >= self._settings.retry_notice_seconds:
                self._is_rescheduled = True
                self.out.drafts += record.reschedule(timestamps.now_us())
        elif status["type"] == "busy":
            self._note_running()
        return None

    def _note_running(self) -> None:
        """The wait for a retry is over; the relay may know it before the child says so."""
        if self._is_rescheduled:
            self._is_rescheduled = False
            self.out.drafts += self._actor.record.run(timestamps.now_us())

    async def _on_idle(self) -> Outcome | None:
        # After an abort opencode may say idle once more, when the next prompt has come already.
        if not self._was_busy:
            return None
        if not self._translator.has_answer and await self._child.is_busy():
            return None
        return self._verdict()

    def _verdict(self) -> Outcome:
        if not self._translator.has_answer:
            # A prompt that comes while an aborted turn is still being taken down goes down with it.
            raise ChildUnavailableError("opencode dropped the prompt")
        failure = self._translator.failure
        if failure is not None:
            if failure.get("name") == "MessageAbortedError":
                text = "opencode aborted the turn, which nobody asked for"
                return failed(Failure("unknown_error", text))
            return failed(failures.of_turn(failure, self._requests.failure))
        if self._translator.is_refused:
            return REFUSED
        if self._translator.is_cut:
            return failed(failures.cut_by_limit(has_text=self._translator.has_text))
        return Outcome()

    def _on_child_lost(self, reason: str) -> Outcome:
        if self._actor.is_paused:
            raise Detached
        if not self._translator.has_begun:
            raise ChildUnavailableError(f"opencode {reason} before it took the prompt")
        return failed(Failure("unknown_error", f"opencode {reason}; the turn was cut"))

    async def _on_answer(self, answer: ClientAnswer) -> None:
        if self._paused_since is not None:
            # The client's time is not the turn's.
            self._deadline += asyncio.get_running_loop().time() - self._paused_since
            self._paused_since = None
        await self._asks.on_answer(self._child, answer)

    # -- silences and gaps --------------------------------------------------------------------------

    async def _on_silence(self) -> Outcome | None:
        if self._can_pause():
            await self._pause()
            return None
        if self._can_announce():
            self.out.extend(self._translator.pause())
        if self.out.drafts:
            await self._store()
            return None
        if asyncio.get_running_loop().time() >= self._deadline:
            await self._child.abort()
            seconds = self._settings.max_seconds
            text = f"the turn took longer than {seconds:g} s (SIDECAR_TURN_MAX_SECONDS)"
            return failed(Failure("unknown_error", text))
        outcome = await self._repair()
        if outcome is None:
            await self._store()
        return outcome

    async def _repair(self) -> Outcome | None:
        """Events may have been missed: read the truth from the status and the messages."""
        try:
            is_busy = await self._child.is_busy()
            messages = await self._child.messages()
        except ChildUnavailableError:
            # Slow is not dead, and the next silence asks again. If it is dead, the supervisor says so.
            return None
        for message in messages:
            self.out.extend(self._translator.child_event("message.updated", message))
            for part in message["parts"]:
                self.out.extend(
                    self._translator.child_event("message.part.updated", {"part": part})
                )
            error = message["info"].get("error")
            if error and self._translator.is_armed and message["info"]["role"] == "assistant":
                self.out.extend(self._translator.child_event("session.error", {"error": error}))
        self._was_busy |= is_busy
        return None if is_busy else self._verdict()

    async def _pause(self) -> None:
        async with self._actor.hold():
            if self._can_pause():  # still: the client may have been quicker
                self._paused_since = asyncio.get_running_loop().time()
                self.out.extend(self._translator.pause())
                await self._actor.pause(self.out, list(self._asks.waiting_calls()))
                self.out = Output()

    # -- the interrupt ------------------------------------------------------------------------------

    async def _interrupt(self) -> Outcome:
        """Have opencode stop, and return when it has."""
        try:
            async with asyncio.timeout(ABORT_WAIT_SECONDS):
                # An abort that comes too early is forgotten, or breaks what opencode is just loading.
                if not await self._ends_unasked():
                    await self._abort()
        except (TimeoutError, ChildUnavailableError):
            _log.warning("abort was not confirmed", session=self._actor.record.id)
        return Outcome()

    async def _ends_unasked(self) -> bool:
        """Wait for the first model request, not for ever; return whether the turn ended without one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_WAIT_SECONDS):
                while not self._translator.has_asked_model:
                    item = await self._inbox.get()
                    if isinstance(item, ChildLost | Stopping):
                        return True
                    if not isinstance(item, Interrupt) and await self._take(item) is not None:
                        return True
        return False

    async def _abort(self) -> None:
        is_busy = True
        while is_busy:
            await self._child.abort()
            while True:
                item = await self._inbox.get()
                if isinstance(item, ChildLost | Stopping):
                    return
                if isinstance(item, ModelRequestStarted | ModelRequestEnded):
                    await self._take(item)
                if isinstance(item, ChildEvent) and item.session_id == self._child.session_id:
                    if _is_idle(item):
                        break
                    if not _is_cut(item):
                        self.out.extend(self._translator.child_event(item.type, item.properties))
            is_busy = await self._child.is_busy()

    async def _store(self) -> None:
        """Show and commit what there is."""
        self._actor.preview(self.out.previews)
        self.out.previews = []
        if self.out.drafts or self.out.used:
            async with self._actor.hold():
                await self._actor.commit(self.out.drafts, used=self.out.used)
                self.out = Output()


def _is_idle(event: ChildEvent) -> bool:
    return event.type == "session.status" and event.properties["status"]["type"] == "idle"


def _is_cut(event: ChildEvent) -> bool:
    """Whether it is not told during an abort: text, and that a call was aborted, which we tell ourselves."""
    if event.type != "message.part.updated":
        return event.type == "message.part.delta"
    part = event.properties["part"]
    is_aborted = part["type"] == "tool" and part["state"]["status"] == "error"
    return is_aborted or part["type"] in {"text", "reasoning"}
