"""One turn: from an accepted user message to its one terminal event, whatever dies in between.

A turn is a task with an inbox. Everything that happens (the child's events, the relay's, the client's
answers, losses) is put into the inbox without blocking the sender. The task gets the child ready, sends
the prompt, and has a `PromptRun` follow it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.aiokit import Backoff
from sidecar.config import TurnSettings
from sidecar.errors import ChildError, ChildUnavailableError, SidecarError
from sidecar.managed.child.sessions import ChildSession, ChildSessions, prompt_parts
from sidecar.managed.sessions.asks import Asks
from sidecar.managed.sessions.prompt_run import PromptRun
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.failures import Failure, TurnFailedError
from sidecar.managed.turns.inputs import (
    ClientAnswer,
    Detached,
    InboxItem,
    Interrupt,
    Outcome,
    Stopping,
    failed,
)
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.managed.turns.translator import TurnTranslator
from sidecar.naming import ModelRef
from sidecar.opencode.custom_tools import CustomTools
from sidecar.store.interface import StoreError

if TYPE_CHECKING:
    from sidecar.managed.sessions.actor import SessionActor

_MAX_SENDS = 2
"""A prompt that was lost before anything came of it is sent once more. If the child dies of it, a third time
would make a crash loop."""

_CONVERSATION_LOST = Failure(
    "unknown_error",
    "opencode no longer has this conversation (its data was lost, or somebody deleted its session); "
    "create a new session",
    "terminal",
)
_CUT = Failure("unknown_error", "opencode was lost while it worked; the turn was cut")

_log = structlog.get_logger(__name__)


class Turn:
    """Runs one prompt. `put` may be called by anyone on the loop at any time."""

    def __init__(
        self,
        *,
        actor: SessionActor,
        child_sessions: ChildSessions,
        custom_tools: CustomTools,
        content: Sequence[Mapping[str, Any]],
        resume: Continuation | None,
        earlier: Failure | None,
        message_id: str,
        settings: TurnSettings,
    ) -> None:
        self._actor = actor
        self._child_sessions = child_sessions
        self._custom_tools = custom_tools
        self._content = resume.content if resume is not None else content
        self._resume = resume
        self._message_id = message_id
        self._settings = settings
        self.done = asyncio.Event()
        self._inbox: asyncio.Queue[InboxItem] = asyncio.Queue()
        self._preparation: asyncio.Timeout | None = None
        self._withdrawn_by: Interrupt | Stopping | None = None
        self._is_sent = False
        self._sends = 0 if earlier is None else 1
        self._taken_earlier = earlier or _CUT
        self._run: PromptRun | None = None
        self._deadline = 0.0
        self._translator = TurnTranslator(
            plan=actor.plan,
            message_id=message_id,
            granted=resume.granted if resume is not None else (),
            is_split=settings.split_messages,
        )
        self._asks = Asks(
            translator=self._translator,
            custom_tools=custom_tools,
            session_id=actor.record.id,
        )

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client, by event id."""
        return self._asks.waiting_calls()

    @property
    def is_preparing(self) -> bool:
        """Whether the prompt was not sent yet, or has to be sent again."""
        return not self._is_sent

    def put(self, item: InboxItem) -> None:
        """Tell the turn what happened."""
        if not self.is_preparing:
            self._inbox.put_nowait(item)
        elif isinstance(item, Interrupt | Stopping):
            # Nobody wants the prompt sent any more. A lost child is no news yet: its next boot gets it.
            self._withdrawn_by = self._withdrawn_by or item
            if self._preparation is not None:
                self._preparation.reschedule(asyncio.get_running_loop().time())

    def answer(self, answer: ClientAnswer) -> None:
        """Give the turn the client's answer to a call that waits."""
        self._asks.note_answer(answer)
        self.put(answer)

    async def run(self) -> None:
        """Run to the terminal event, or until a paused turn loses its child."""
        self._deadline = asyncio.get_running_loop().time() + self._settings.max_seconds
        try:
            outcome = await self._execute()
        except Detached:
            self._custom_tools.clear(self._actor.record.id)
            if self._run is not None and self._run.out.drafts:
                async with self._actor.hold():
                    await self._actor.commit(self._run.out.drafts, used=self._run.out.used)
            self._actor.detach(self)
            return
        except TurnFailedError as error:
            outcome = failed(error.failure)
        except SidecarError as error:
            if self.is_preparing and not self._actor.may_start():
                self._actor.detach(self)  # the next start of the sidecar sends it, or settles it
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
            async with self._actor.hold():
                await self._actor.commit(self._resume.drafts)
        try:
            return await self._prepare_and_run()
        except TimeoutError:
            if self._withdrawn_by is None:
                raise
            if self._sends:
                # Nobody knows whether the child took it: it must not work on it behind our back.
                await self._child_sessions.abort(self._actor.record)
            if isinstance(self._withdrawn_by, Stopping):
                raise Detached from None
            return Outcome()

    async def _prepare_and_run(self) -> Outcome:
        # Until the prompt is sent, an interrupt ends the preparation by letting this scope expire.
        async with asyncio.timeout(None) as preparation:
            self._preparation = preparation
            await self._prepare_directory()
            # The child's death is noticed within the first pauses, and then its next boot is waited for.
            clock, backoff = asyncio.get_running_loop().time, Backoff(first=0.1, longest=1.0)
            give_up_at = clock() + self._child_sessions.prompt_wait_seconds
            while True:
                try:
                    return await self._execute_in_child(preparation, give_up_at - clock())
                except ChildUnavailableError:
                    is_vain = self._sends >= _MAX_SENDS or clock() >= give_up_at
                    if not self.is_preparing or is_vain or not self._actor.may_start():
                        raise
                await asyncio.sleep(backoff.next_delay())

    async def _prepare_directory(self) -> None:
        """Clone the session's repositories. Without them there is no turn; the next one tries again."""
        missing = await self._child_sessions.prepare_directory(self._actor.record)
        if missing:
            async with self._actor.hold():
                await self._actor.commit([failure.draft() for failure in missing[1:]])
            raise TurnFailedError(missing[0])

    async def _execute_in_child(self, preparation: asyncio.Timeout, wait_seconds: float) -> Outcome:
        record, is_repeated = self._actor.record, self._sends > 0
        opening = self._child_sessions.open(
            record, self.put, wait_seconds=max(0.0, wait_seconds), is_reloaded=is_repeated
        )
        self._check_wanted()
        async with opening as child:
            try:
                if is_repeated and await child.has_taken(self._message_id):
                    raise TurnFailedError(self._taken_earlier)
                await self._actor.note_prompt(child.session_id, is_repeated=is_repeated)
                self._check_wanted()
                preparation.reschedule(None)
                self._preparation, self._is_sent = None, True
                self._sends += 1
                await self._send(child)
                return await self._follow(child)
            except ChildUnavailableError:
                if self._translator.has_begun:
                    await self._give_up(child)
                else:
                    self._prepare_again(preparation)
                raise
            except (SidecarError, StoreError) as error:
                if isinstance(error, ChildError) and error.upstream_status == 404:
                    raise TurnFailedError(_CONVERSATION_LOST) from error
                await self._give_up(child)
                raise

    def _check_wanted(self) -> None:
        if self._withdrawn_by is not None:
            raise TimeoutError

    async def _send(self, child: ChildSession) -> None:
        record = self._actor.record
        await child.prompt(
            message_id=self._message_id,
            model=ModelRef.parse(record.model_ref),
            parts=prompt_parts(self._message_id, self._content),
            system=self._actor.system,
            variant=(record.agent["model"].get("effort") or {}).get("type"),
        )

    async def _follow(self, child: ChildSession) -> Outcome:
        self._run = PromptRun(
            actor=self._actor,
            child=child,
            inbox=self._inbox,
            translator=self._translator,
            asks=self._asks,
            settings=self._settings,
            deadline=self._deadline,
        )
        return await self._run.follow()

    def _prepare_again(self, preparation: asyncio.Timeout) -> None:
        """The prompt may never have been taken: the child, or its next boot, is asked and sent it again."""
        self._is_sent = False
        self._preparation = preparation
        while not self._inbox.empty():
            self.put(self._inbox.get_nowait())

    async def _give_up(self, child: ChildSession) -> None:
        """We give up on the turn: opencode must not go on with it behind our back."""
        with contextlib.suppress(SidecarError):
            await child.abort()

    async def _finish(self, outcome: Outcome) -> None:
        self._custom_tools.clear(self._actor.record.id)
        async with self._actor.hold():
            out = self._run.out if self._run is not None else Output()
            self._actor.preview(out.previews)
            out.extend(self._translator.settle(outcome.settle_text))
            await self._actor.end_turn(self, outcome, out)
