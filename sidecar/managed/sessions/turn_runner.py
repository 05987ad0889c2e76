"""Runs a turn: takes its inputs, has the machine decide, and executes the commands.

There is one queue of inputs and one reader. The reader decides and commits under the session's lock, with
everything that has arrived until then: an answer or an interrupt that was accepted is always known to the
decision that comes after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import structlog

from sidecar.managed.child.places import TurnPlace
from sidecar.managed.child.sessions import ChildSessions
from sidecar.managed.child.worker import ChildWorker, Prompt
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import Draft, Event, Preview
from sidecar.managed.turns import commands as do
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.inputs import ClientAnswer, Fired, Input
from sidecar.managed.turns.machine import TurnMachine
from sidecar.managed.turns.outcome import Outcome
from sidecar.managed.turns.state import SessionRecord
from sidecar.managed.turns.timing import STOP_WAIT_SECONDS, Timer
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.model_requests import Usage
from sidecar.opencode.custom_tools import CustomTools, ToolResult
from sidecar.store.interface import StoreError

_log = structlog.get_logger(__name__)


class TurnSession(Protocol):
    """What a turn needs of its session; all but `preview`, `save_files` and `detach` under its lock, see
    `hold`."""

    record: SessionRecord

    @property
    def keeps_files(self) -> bool:
        """Whether the session's files are copied to where other pods find them."""

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Hold the session's lock."""

    async def commit(self, drafts: Sequence[Draft], *, used: Sequence[Usage] = ()) -> list[Event]:
        """Append events and store the row in one transaction."""

    def preview(self, previews: Sequence[Preview]) -> None:
        """Show previews to the readers that asked for them."""

    async def note_prompt(self, child_session_id: str, *, is_repeated: bool) -> None:
        """Note that the prompt is about to be sent to that session in opencode."""

    async def wait(self, out: Output, event_ids: Sequence[str]) -> None:
        """Commit, and show that the turn waits for the client."""

    async def save_files(self) -> None:
        """Copy the session's files; return when that is done, after a bounded time."""

    async def end_turn(self, turn: Any, outcome: Outcome, out: Output) -> None:
        """Commit the turn's terminal event, and begin the next queued message."""

    def detach(self, turn: Any) -> None:
        """The turn's task ends, and the turn does not."""


class TurnRunner:
    """The task of one turn. `put` may be called from the event loop at any time."""

    def __init__(
        self,
        *,
        session: TurnSession,
        machine: TurnMachine,
        child_sessions: ChildSessions,
        custom_tools: CustomTools,
        prompt: Prompt,
        place: TurnPlace,
    ) -> None:
        self._session = session
        self._machine = machine
        self._custom_tools = custom_tools
        self._worker = ChildWorker(
            session=session,
            child_sessions=child_sessions,
            prompt=prompt,
            place=place,
            report=self.put,
        )
        self._inputs: list[Input] = []
        self._has_input = asyncio.Event()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._is_stopped = False
        self._pause: Sequence[str] = ()
        """What the turn waits for and the client was not told yet: the files are kept first."""
        self._outcome: Outcome | None = None
        self.done = asyncio.Event()
        """Set by the owner of the task when it is over."""

    @property
    def is_preparing(self) -> bool:
        """Whether the prompt was not sent yet, or has to be sent again."""
        return self._machine.is_preparing

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client, by event id."""
        answered = {i.tool_use_id for i in self._inputs if isinstance(i, ClientAnswer)}
        calls = self._machine.waiting_calls().items()
        return {event_id: call for event_id, call in calls if event_id not in answered}

    def put(self, item: Input) -> None:
        """Report to the turn what happened."""
        self._inputs.append(item)
        self._has_input.set()

    async def run(self) -> None:
        """Run until the turn has ended, or has to wait without a task. Raises StoreError."""
        self._worker.start()
        try:
            await self._follow_or_crash()
            if self._outcome is not None:
                # The lock is free meanwhile: a client may send the next message.
                await self._session.save_files()
                async with self._session.hold():
                    await self._session.end_turn(self, self._outcome, Output())
        finally:
            await self._stop()

    async def _follow_or_crash(self) -> None:
        try:
            await self._follow()
        except StoreError:
            # The turn is settled from the log, later: opencode must not go on with it meanwhile.
            await self._worker.abort(STOP_WAIT_SECONDS)
            raise
        except Exception as error:
            _log.exception("turn crashed", session=self._session.record.id)
            await self._worker.abort(STOP_WAIT_SECONDS)
            async with self._session.hold():
                text = f"the sidecar failed: {type(error).__name__}"
                await self._execute(self._machine.crash(text))

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        async with self._session.hold():
            await self._execute(self._machine.begin(clock()))
        while not self._machine.is_over:
            saved_for = self._pause
            if saved_for:
                # The lock is free meanwhile, and what arrives is decided about before the pause is shown.
                await self._session.save_files()
            else:
                await self._has_input.wait()
            async with self._session.hold():
                self._has_input.clear()
                batch, self._inputs = self._inputs, []
                await self._execute(self._machine.handle(batch, clock()))
                if self._machine.is_over:
                    break
                self._worker.note_waiting(is_waiting=self._machine.is_waiting)
                if not self._machine.is_waiting:
                    self._pause = ()  # answered or interrupted before it was shown
                elif saved_for and saved_for is self._pause:
                    await self._show_pause(Output())

    async def _show_pause(self, out: Output) -> None:
        event_ids, self._pause = self._pause, ()
        await self._session.wait(out, event_ids)

    async def _execute(self, commands: Sequence[do.Command]) -> None:  # noqa: PLR0912  # one case each
        """Execute the commands in order. What has to be durable is committed before opencode is asked."""
        out = Output()
        for command in commands:
            match command:
                case do.Append(drafts, previews, used):
                    if previews and out.drafts:
                        out = await self._commit(out)
                    self._session.preview(previews)
                    out.extend(Output(drafts=list(drafts), used=list(used)))
                case do.Reschedule():
                    out.drafts += self._session.record.reschedule(timestamps.now_us())
                case do.Run():
                    out.drafts += self._session.record.run(timestamps.now_us())
                case do.Wait(event_ids):
                    self._pause = event_ids
                    if not self._session.keeps_files:  # else `_follow` goes on from here
                        await self._show_pause(out)
                        out = Output()
                case do.Finish(outcome):
                    await self._stop()
                    if self._session.keeps_files:
                        await self._commit(out)
                        self._outcome = outcome  # `run` goes on from here
                    else:
                        await self._session.end_turn(self, outcome, out)
                    return
                case do.Detach():
                    await self._stop()
                    if self._pause:
                        await self._show_pause(out)
                    else:
                        await self._commit(out)
                    self._session.detach(self)
                    return
                case do.SetTimer(timer, seconds):
                    self._set_timer(timer, seconds)
                case do.Warn(message):
                    _log.warning(message, session=self._session.record.id)
                case do.NotePrompt(child_session_id, is_repeated):
                    out = await self._commit(out)
                    await self._session.note_prompt(child_session_id, is_repeated=is_repeated)
                case do.GiveToolResult():
                    self._give(command)
                case _:
                    out = await self._commit(out)
                    self._worker.put(command)
        await self._commit(out)

    def _give(self, given: do.GiveToolResult) -> None:
        result = ToolResult(given.content, given.is_error)
        self._custom_tools.answer(self._session.record.id, given.name, given.input, result)

    async def _commit(self, out: Output) -> Output:
        """Commit, if there is something; return what is left to be committed: nothing."""
        if out.drafts or out.used:
            await self._session.commit(out.drafts, used=out.used)
        return Output()

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        if timer in self._timers:
            self._timers[timer].cancel()
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(seconds, self.put, Fired(timer))

    async def _stop(self) -> None:
        """Let go of opencode, the timers and the calls of the client's tools: once, since after the end of
        this turn those are the next turn's."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        await self._worker.close()
        self._custom_tools.clear(self._session.record.id)
