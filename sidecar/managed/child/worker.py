"""Executes what a turn wants of opencode, one command after the other, and reports the results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from sidecar.aiokit import cancel_and_wait
from sidecar.errors import ChildError, ChildSlowError, ChildUnavailableError, SidecarError
from sidecar.managed.child.places import TurnPlace
from sidecar.managed.child.sessions import ChildSession, ChildSessions, prompt_parts
from sidecar.managed.turns import commands as do
from sidecar.managed.turns import inputs as got
from sidecar.managed.turns.failures import TurnFailedError
from sidecar.managed.turns.state import SessionRecord
from sidecar.naming import ModelRef

_log = structlog.get_logger(__name__)


class HasRecord(Protocol):
    """Whose row the worker looks at; the row may be read anew after a failure of the store."""

    record: SessionRecord


@dataclass(frozen=True, slots=True)
class Prompt:
    """What `SendPrompt` sends. `content` holds the blocks of the user's message."""

    message_id: str
    content: Sequence[Mapping[str, Any]] | None
    """None for a long one: it is not kept for the time of the turn."""
    system: str | None
    read_content: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
    """Reads it from the log. Raises StoreError."""


class ChildWorker:
    """The connection of one turn to opencode.

    A command to open, close or abort comes before the others: it replaces what waits or is under way.
    """

    def __init__(
        self,
        *,
        session: HasRecord,
        child_sessions: ChildSessions,
        prompt: Prompt,
        place: TurnPlace,
        report: Callable[[got.Input], None],
    ) -> None:
        self._session = session
        self._child_sessions = child_sessions
        self._prompt = prompt
        self._place = place
        self._report = report
        self._queue: asyncio.Queue[do.ChildCommand] = asyncio.Queue()
        self._stack = AsyncExitStack()
        self._child: ChildSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._job: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to execute commands. The caller closes the worker."""
        name = f"opencode commands of {self._session.record.id}"
        self._task = asyncio.create_task(self._run(), name=name)

    async def close(self) -> None:
        """Stop, whatever is under way, and let go of the session in opencode. May be called twice."""
        task, self._task = self._task, None
        await cancel_and_wait(task)
        await cancel_and_wait(self._job)
        await self._close_session()
        self._place.leave()

    def put(self, command: do.ChildCommand) -> None:
        """Execute the command when its time has come."""
        if isinstance(command, do.Open | do.Close | do.Abort):
            while not self._queue.empty():
                self._queue.get_nowait()
            if self._job is not None:
                self._job.cancel()
        self._queue.put_nowait(command)

    def note_waiting(self, *, is_waiting: bool) -> None:
        """Give the turn's place to others while it waits for the client."""
        if is_waiting:
            self._place.leave()
        elif self._child is not None:
            self._place.enter_at_once()

    async def abort(self, seconds: float) -> None:
        """Ask opencode to stop, for at most that long; errors are of no interest any more."""
        with contextlib.suppress(SidecarError, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._abort()

    async def _run(self) -> None:
        while True:
            command = await self._queue.get()
            self._job = asyncio.create_task(self._perform(command), name=type(command).__name__)
            await asyncio.wait({self._job})

    async def _perform(self, command: do.ChildCommand) -> None:
        try:
            result = await self._execute(command)
        except ChildUnavailableError as error:
            is_slow = isinstance(error, ChildSlowError)
            result = got.Unavailable(command, error.message, is_slow=is_slow)
        except TurnFailedError as error:
            result = got.Refused(command, error.message, failure=error.failure)
        except SidecarError as error:
            status = error.upstream_status if isinstance(error, ChildError) else None
            result = got.Refused(command, error.message, status)
        except Exception as error:
            _log.exception(
                "command crashed", session=self._session.record.id, command=repr(command)
            )
            result = got.Refused(command, f"the sidecar failed: {type(error).__name__}")
        if result is not None:
            self._report(result)

    async def _execute(self, command: do.ChildCommand) -> got.Input | None:
        match command:
            case do.PrepareDirectory():
                failures = await self._child_sessions.prepare_directory(self._session.record)
                return got.Prepared(tuple(failures))
            case do.Open():
                return await self._open(command)
            case do.Close():
                await self._close_session()
                return None
            case do.Abort():
                await self._abort()
                return got.Aborted()
        assert self._child is not None
        return await self._ask(self._child, command)

    async def _ask(self, child: ChildSession, command: do.ChildCommand) -> got.Input | None:
        match command:
            case do.SendPrompt():
                await self._send(child)
            case do.ReplyPermission(permission_id, reply, message):
                await child.reply_permission(permission_id, reply, message)
            case do.RejectQuestion(question_id):
                await child.reject_question(question_id)
            case do.AskBusy():
                return got.Busy(await child.is_busy())
            case do.ReadTruth():
                # In this order: once it is idle, its messages are complete.
                is_busy = await child.is_busy()
                return got.Truth(is_busy, tuple(await child.messages()))
        return None

    async def _open(self, command: do.Open) -> got.Opened:
        await self._close_session()
        if await self._place.enter():
            self._report(got.Placed())
        opening = self._child_sessions.open(
            self._session.record,
            self._report,
            wait_seconds=command.wait_seconds,
            on_lost=lambda reason: self._report(got.ChildLost(reason)),
            is_reloaded=command.is_repeated,
        )
        child = self._child = await self._stack.enter_async_context(opening)
        has_taken = command.is_repeated and await child.has_taken(self._prompt.message_id)
        return got.Opened(child.session_id, has_taken)

    async def _send(self, child: ChildSession) -> None:
        record, prompt = self._session.record, self._prompt
        content = await prompt.read_content() if prompt.content is None else prompt.content
        await child.prompt(
            message_id=prompt.message_id,
            model=ModelRef.parse(record.model_ref),
            parts=prompt_parts(prompt.message_id, content),
            system=prompt.system,
            variant=(record.agent["model"].get("effort") or {}).get("type"),
        )

    async def _abort(self) -> None:
        if self._child is not None:
            await self._child.abort()
        else:
            await self._child_sessions.abort(self._session.record)

    async def _close_session(self) -> None:
        self._child = None
        await self._stack.aclose()
