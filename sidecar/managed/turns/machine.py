"""The life of a turn, as a state machine without I/O: inputs and the time go in, commands come out.

What a cause does in a phase is one cell of `TRANSITIONS`. The diagram in docs/architecture.md is drawn from
the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sidecar.managed.turns import approvals, failures
from sidecar.managed.turns import commands as do
from sidecar.managed.turns import inputs as got
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.outcome import COMPLETED, REFUSED, Outcome, failed, failed_for
from sidecar.managed.turns.phases import FOLLOWING, OVER, RUNNING, Cause, Phase
from sidecar.managed.turns.request_failures import LastRequestFailure
from sidecar.managed.turns.timing import (
    ABORT_WAIT_SECONDS,
    BEGIN_WAIT_SECONDS,
    FIRST_RETRY_SECONDS,
    LONE_START_SECONDS,
    LONGEST_RETRY_SECONDS,
    STOP_WAIT_SECONDS,
    Limits,
    Timer,
)
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.managed.turns.translator import TurnTranslator, is_of_abort
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted
from sidecar.wire.opencode_events import ChildEvent, ChildGap

P, C = Phase, Cause
TRANSITIONS: Mapping[Phase, Mapping[Cause, Phase]] = {
    P.PREPARING: {
        C.OPENED: P.SENT, C.UNREADY: P.PREPARING, C.FAILED: P.ENDED,
        C.VIOLATION: P.ENDED, C.INTERRUPT: P.ENDED, C.DRAINED: P.DETACHED, C.STOPPING: P.DETACHED,
    },
    P.RESENDING: {
        C.OPENED: P.SENT, C.UNREADY: P.RESENDING, C.TAKEN: P.GIVING_UP, C.FAILED: P.ENDED,
        C.VIOLATION: P.GIVING_UP, C.INTERRUPT: P.GIVING_UP, C.DRAINED: P.DETACHED, C.STOPPING: P.GIVING_UP,
    },
    P.SENT: {
        C.WORK: P.WORKING, C.RETRY: P.RETRYING,
        C.LOST: P.RESENDING, C.FAILED: P.ENDED, C.REFUSED: P.GIVING_UP, C.VIOLATION: P.GIVING_UP,
        C.INTERRUPT: P.ABORTING, C.DEADLINE: P.GIVING_UP, C.DRAINED: P.DETACHED, C.STOPPING: P.ENDED,
    },
    P.WORKING: {
        C.RETRY: P.RETRYING, C.CALLS_WAIT: P.WAITING, C.IDLE: P.ENDED,
        C.LOST: P.ENDED, C.FAILED: P.ENDED, C.REFUSED: P.GIVING_UP, C.VIOLATION: P.GIVING_UP,
        C.INTERRUPT: P.ABORTING, C.DEADLINE: P.GIVING_UP, C.STOPPING: P.ENDED,
    },
    P.RETRYING: {
        C.RESUMED: P.WORKING, C.CALLS_WAIT: P.WAITING, C.IDLE: P.ENDED,
        C.LOST: P.ENDED, C.FAILED: P.ENDED, C.REFUSED: P.GIVING_UP, C.VIOLATION: P.GIVING_UP,
        C.INTERRUPT: P.ABORTING, C.DEADLINE: P.GIVING_UP, C.STOPPING: P.ENDED,
    },
    P.WAITING: {
        C.ANSWER: P.WORKING, C.IDLE: P.ENDED,
        C.LOST: P.DETACHED, C.FAILED: P.ENDED, C.REFUSED: P.GIVING_UP, C.VIOLATION: P.GIVING_UP,
        C.INTERRUPT: P.ABORTING, C.DISMISSED: P.GIVING_UP, C.STOPPING: P.DETACHED,
    },
    P.ABORTING: {
        C.STOPPED: P.ENDED, C.UNCONFIRMED: P.ENDED,
        C.LOST: P.ENDED, C.REFUSED: P.GIVING_UP, C.DISMISSED: P.GIVING_UP, C.STOPPING: P.ENDED,
    },
    P.GIVING_UP: {C.STOPPED: P.ENDED, C.UNCONFIRMED: P.ENDED, C.LOST: P.ENDED, C.LET_GO: P.DETACHED},
    P.ENDED: {},
    P.DETACHED: {},
}  # fmt: skip
"""The legal moves. An input whose cause has no cell in the current row does not move the turn; a decision of
the machine itself that has none raises."""

_MAX_SENDS = 2
"""A prompt that was lost before anything came of it is sent once more. If the child dies of it, a third time
would make a crash loop."""

_CONVERSATION_LOST = Failure(
    "unknown_error",
    "opencode no longer has this conversation (its data was lost, or its session was deleted); "
    "create a new session",
    "terminal",
)
_CUT = Failure("unknown_error", "opencode was lost while it worked; the turn was cut")


class IllegalMoveError(Exception):
    """A turn was to make a move that `TRANSITIONS` does not have: a programming error."""


class TurnMachine:
    """Decides what follows from each input. `now` is monotonic, in seconds; `new_id` makes ids of events.

    `earlier` says that the prompt may have been sent by an earlier process: if opencode has taken it, the
    turn ends with that failure. `epoch_offset` added to `now` is the wall clock in seconds.
    """

    def __init__(
        self,
        *,
        plan: ToolPlan,
        message_id: str,
        new_id: Callable[[], str],
        limits: Limits,
        continuation: Continuation | None = None,
        earlier: Failure | None = None,
        epoch_offset: float = 0.0,
    ) -> None:
        self.phase = Phase.PREPARING if earlier is None else Phase.RESENDING
        self._limits = limits
        self._epoch_offset = epoch_offset
        self._continuation = continuation
        self._translator = TurnTranslator(
            plan=plan,
            message_id=message_id,
            new_id=new_id,
            granted=continuation.granted if continuation is not None else (),
            is_split=limits.is_split,
        )
        self._requests = LastRequestFailure()
        self._commands: list[do.Command] = []
        self._out = Output()
        self._outcome: Outcome | None = None
        self._taken_earlier = earlier or _CUT
        self._sends = 0 if earlier is None else 1
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._is_draining = self._stays_open = False
        self._is_abort_sent = False
        self._was_busy = self._is_idle_in_doubt = self._is_truth_asked = False
        self._show_time = approvals.ShowTime(self._translator)
        self._now = self._give_up_at = self._deadline = self._waits_since = 0.0
        self._last_input_at = self._quiet_at = 0.0

    @property
    def is_preparing(self) -> bool:
        """Whether the prompt was not sent yet, or has to be sent again."""
        return self.phase in {Phase.PREPARING, Phase.RESENDING}

    @property
    def is_waiting(self) -> bool:
        """Whether nothing goes on without the client."""
        return self.phase is Phase.WAITING

    @property
    def is_over(self) -> bool:
        """Whether the turn needs no task any more."""
        return self.phase in OVER

    def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client as the log shows them, by event id."""
        calls = self._translator.open_calls.values()
        return {call.event_id: call.logged() for call in calls if call.waits_for_client}

    # -- the three ways in -------------------------------------------------------------------------

    def begin(self, now: float) -> list[do.Command]:
        """Return what a new turn does first."""
        self._now, self._commands = now, []
        self._deadline = now + self._limits.max_seconds
        if self._continuation is not None and self._continuation.drafts:
            self._commands.append(do.Append(tuple(self._continuation.drafts)))
        self._commands.append(do.PrepareDirectory())
        return self._commands

    def handle(self, batch: Sequence[got.Input], now: float) -> list[do.Command]:
        """Apply every input of the batch, then decide; return what has to be done, in order.

        The client's answers come first: they are in the log already, whatever else has happened.
        """
        self._now, self._commands = now, []
        self._flush()  # a start that was held back: what follows it must not be shown before it
        for item in sorted(batch, key=lambda item: not isinstance(item, got.ClientAnswer)):
            self._apply(item)
        self._decide()
        return self._commands

    def crash(self, message: str) -> list[do.Command]:
        """End the turn after a bug of ours, from whatever phase it is in: the one way around the table."""
        self._commands = []
        if not self.is_over:
            self.phase, self._outcome = Phase.ENDED, failed_for(message)
        self._decide()
        return self._commands

    # -- moves -------------------------------------------------------------------------------------

    def _can(self, cause: Cause) -> bool:
        return cause in TRANSITIONS[self.phase]

    def _move(self, cause: Cause, outcome: Outcome | None = None) -> None:
        """Make a move, and what the phase that it leads to begins with."""
        if not self._can(cause):
            raise IllegalMoveError(f"{self.phase.name} has no {cause.name}")
        before, self.phase = self.phase, TRANSITIONS[self.phase][cause]
        self._outcome = outcome or self._outcome
        match self.phase:
            case Phase.PREPARING | Phase.RESENDING:
                self._set(Timer.REOPEN, self._retry_seconds)
                self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)
                if before is Phase.SENT:
                    self._commands.append(do.Close())
            case Phase.SENT:
                self._set(Timer.SILENCE, self._limits.watchdog_seconds)
                self._set(Timer.DEADLINE, self._deadline - self._now)
                self._was_busy = self._is_idle_in_doubt = self._is_truth_asked = False
            case Phase.ABORTING:
                self._set(Timer.ABORT, ABORT_WAIT_SECONDS)
                if not self._translator.has_asked_model:
                    self._set(Timer.BEGIN, BEGIN_WAIT_SECONDS)
            case Phase.GIVING_UP:
                bound = STOP_WAIT_SECONDS if cause is Cause.STOPPING else ABORT_WAIT_SECONDS
                self._set(Timer.ABORT, bound)
                self._abort()

    def _abort(self) -> None:
        self._is_abort_sent = True
        self._commands.append(do.Abort())

    def _set(self, timer: Timer, seconds: float) -> None:
        self._commands.append(do.SetTimer(timer, max(0.0, seconds)))

    def _say(self, out: Output) -> None:
        self._out.extend(out)

    def _flush(self) -> None:
        out, self._out = self._out, Output()
        if out.drafts or out.previews or out.used:
            self._commands.append(
                do.Append(tuple(out.drafts), tuple(out.previews), tuple(out.used))
            )

    # -- inputs ------------------------------------------------------------------------------------

    def _apply(self, item: got.Input) -> None:  # noqa: PLR0912  # one case for each input
        if not isinstance(item, got.Fired):
            self._last_input_at = self._now
        match item:
            case ModelRequestStarted() | ModelRequestEnded():
                self._on_model_request(item)
            case ChildEvent():
                self._on_child_event(item)
            case ChildGap():
                self._on_gap()
            case got.ClientAnswer():
                self._on_answer(item)
            case got.Interrupt():
                if self._can(Cause.INTERRUPT):
                    self._move(Cause.INTERRUPT, COMPLETED)
            case got.Dismissed():
                self._stays_open = True
                if self._can(Cause.DISMISSED):
                    self._move(Cause.DISMISSED)
            case got.ChildLost(reason):
                self._on_child_lost(reason)
            case got.Violation(failure):
                if self._can(Cause.VIOLATION):
                    self._move(Cause.VIOLATION, failed(failure))
            case got.Draining():
                self._is_draining = True
            case got.Stopping():
                self._on_stopping()
            case got.Fired(timer):
                self._on_timer(timer)
            case got.Placed():
                # Only now does the turn's own time begin.
                self._give_up_at = self._now + self._limits.prompt_wait_seconds
                self._deadline = self._now + self._limits.max_seconds
            case got.Prepared() | got.Opened():
                self._on_ready(item)
            case got.Aborted() if self.phase is Phase.GIVING_UP:
                self._give_up(Cause.STOPPED)
            case got.Busy(is_busy):
                self._on_busy(is_busy=is_busy)
            case got.Truth():
                self._on_truth(item)
            case got.Unavailable():
                self._on_unavailable(item)
            case got.Refused():
                self._on_refused(item)
        self._note_work()

    def _note_work(self) -> None:
        if self.phase is Phase.SENT and self._translator.has_begun:
            self._move(Cause.WORK)

    def _on_model_request(self, item: ModelRequestStarted | ModelRequestEnded) -> None:
        if self.is_preparing:
            return  # of a prompt that was lost: opencode is asked about it
        if isinstance(item, ModelRequestStarted):
            self._note_running()
        self._requests.note(item)
        self._say(self._translator.model_request(item))

    def _on_child_event(self, event: ChildEvent) -> None:
        if self.is_preparing or self.is_over:
            return  # after its end opencode reports the texts that it has cut; whether in time is chance
        if event.session_id != event.root_session_id:
            if not self._is_abort_sent:
                self._commands += approvals.refuse_sub_agent(event)
        elif event.type == "session.status":
            self._on_status(event)
        elif event.type == "question.asked":
            self._commands.append(do.RejectQuestion(event.properties["id"]))
        elif not (self._is_abort_sent and is_of_abort(event)):
            self._say(self._translator.child_event(event.type, event.properties))

    def _on_status(self, event: ChildEvent) -> None:
        status = event.properties["status"]
        if self._is_abort_sent:
            if self.phase is Phase.ABORTING and status["type"] == "idle":
                self._commands.append(do.AskBusy())
            return
        if not self._translator.is_armed or self.phase not in FOLLOWING | {Phase.ABORTING}:
            return
        if status["type"] == "idle":
            self._on_idle()
            return
        self._was_busy, self._is_idle_in_doubt = True, False
        if status["type"] == "retry":
            self._say(self._translator.attempt_failed())
            wait = float(status.get("next") or 0) / 1000 - (self._now + self._epoch_offset)
            if wait >= self._limits.retry_notice_seconds and self._can(Cause.RETRY):
                self._move(Cause.RETRY)
                self._flush()
                self._commands.append(do.Reschedule())
        elif status["type"] == "busy":
            self._note_running()

    def _note_running(self) -> None:
        """The wait for another try is over; the relay may know it before the child says so."""
        if self.phase is Phase.RETRYING:
            self._move(Cause.RESUMED)
            self._flush()
            self._commands.append(do.Run())

    def _on_idle(self) -> None:
        if not self._was_busy:
            return  # of the turn before: after an abort opencode may say idle once more
        if self._translator.has_answer:
            self._on_done()
        else:
            self._is_idle_in_doubt = True
            self._commands.append(do.AskBusy())

    def _on_busy(self, *, is_busy: bool) -> None:
        if self.phase is Phase.ABORTING:
            if not is_busy:
                self._move(Cause.STOPPED)
            elif self._is_abort_sent:
                self._abort()  # an abort at a bad moment is forgotten
        elif self._is_idle_in_doubt and self.phase in FOLLOWING:
            self._is_idle_in_doubt = False
            if not is_busy:
                self._on_done()

    def _on_done(self) -> None:
        """opencode does not work on the session any more."""
        if self.phase is Phase.ABORTING:
            self._move(Cause.STOPPED)
        elif self._translator.has_answer:
            self._move(Cause.IDLE, self._verdict())
        else:
            # A prompt that comes while an aborted turn is still being taken down goes down with it.
            self._on_lost("opencode dropped the prompt")

    def _verdict(self) -> Outcome:
        failure = self._translator.failure
        if failure is not None:
            if failure.get("name") == "MessageAbortedError":
                return failed_for("opencode aborted the turn without being asked to")
            return failed(failures.of_turn(failure, self._requests.failure))
        if self._translator.is_refused:
            return REFUSED
        if self._translator.is_cut:
            return failed(failures.cut_by_limit(has_text=self._translator.has_text))
        if self._translator.is_empty and self._continuation is None:
            return failed(failures.empty_answer(has_thought=self._translator.has_thought))
        return COMPLETED

    def _on_gap(self) -> None:
        """Events may have been missed."""
        if self.phase is Phase.ABORTING:
            self._commands.append(do.AskBusy())
        elif self.phase in FOLLOWING:
            self._ask_truth()

    def _ask_truth(self) -> None:
        if not self._is_truth_asked:
            self._is_truth_asked = True
            self._commands.append(do.ReadTruth())

    def _on_truth(self, truth: got.Truth) -> None:
        self._is_truth_asked = False
        if self.phase not in FOLLOWING:
            return
        self._say(self._translator.messages(truth.messages))
        self._was_busy |= truth.is_busy
        self._note_work()
        if not truth.is_busy:
            self._on_done()

    def _on_answer(self, answer: got.ClientAnswer) -> None:
        if self.phase is Phase.WAITING:
            self._move(Cause.ANSWER)
            self._deadline += self._now - self._waits_since  # the client's time is not the turn's
            self._set(Timer.DEADLINE, self._deadline - self._now)
            self._set(Timer.SILENCE, self._limits.watchdog_seconds)
        for call in self._translator.open_calls.values():
            if call.event_id == answer.tool_use_id:
                self._commands += approvals.take_answer(call, answer)

    def _on_child_lost(self, reason: str) -> None:
        if self.phase is Phase.SENT:
            self._on_lost(f"opencode {reason} before it took the prompt")
        elif self.phase is Phase.GIVING_UP:
            self._give_up(Cause.LOST)
        elif self._can(Cause.LOST):
            cut = failed_for(f"opencode {reason}; the turn was cut")
            self._move(Cause.LOST, self._outcome or cut)

    def _on_lost(self, message: str) -> None:
        """The prompt, or a chance to send it, is lost: try again, unless no try is left."""
        if self.phase not in {Phase.PREPARING, Phase.RESENDING, Phase.SENT}:
            self._move(Cause.REFUSED, failed_for(message))
        elif self._is_draining:
            self._move(Cause.DRAINED)  # the next start of the sidecar sends it, or settles it
        elif self._sends >= _MAX_SENDS or self._now >= self._give_up_at:
            self._move(Cause.FAILED, failed_for(message))
        else:
            self._move(Cause.LOST if self.phase is Phase.SENT else Cause.UNREADY)

    def _on_stopping(self) -> None:
        if self.phase is Phase.GIVING_UP:
            self._give_up(Cause.UNCONFIRMED)
        elif self._can(Cause.STOPPING):
            cut = failed_for("the sidecar is being stopped; the turn was cut")
            self._stays_open |= self.phase is Phase.RESENDING
            self._move(Cause.STOPPING, self._outcome or cut)

    def _give_up(self, cause: Cause) -> None:
        """Leave GIVING_UP, in which opencode was asked to stop."""
        self._move(Cause.LET_GO if self._stays_open else cause)

    # -- results of commands -----------------------------------------------------------------------

    def _on_ready(self, item: got.Prepared | got.Opened) -> None:
        if not self.is_preparing:
            return
        if isinstance(item, got.Opened):
            self._on_opened(item)
        elif item.failures:
            # Without its repositories there is no turn; the next one tries again.
            self._say(Output(drafts=[failure.draft() for failure in item.failures[1:]]))
            self._move(Cause.FAILED, failed(item.failures[0]))
        else:
            self._give_up_at = self._now + self._limits.prompt_wait_seconds
            self._open()

    def _open(self) -> None:
        wait = max(0.0, self._give_up_at - self._now)
        self._commands.append(do.Open(wait, is_repeated=self._sends > 0))

    def _on_opened(self, opened: got.Opened) -> None:
        if opened.has_taken:
            self._move(Cause.TAKEN, failed(self._taken_earlier))
            return
        note = do.NotePrompt(opened.child_session_id, is_repeated=self._sends > 0)
        self._commands += [note, do.SendPrompt()]
        self._sends += 1
        self._move(Cause.OPENED)

    def _on_unavailable(self, item: got.Unavailable) -> None:
        match item.command:
            case do.ReadTruth():
                # Slow is not dead, and the next silence asks again. If it is dead, its supervisor says so.
                self._is_truth_asked = False
            case do.SendPrompt() | do.AskBusy() if item.is_slow and self.phase in FOLLOWING:
                self._ask_truth()  # a prompt that was taken must not be cut to be sent again
            case do.Abort() | do.AskBusy() if self.phase is Phase.ABORTING:
                self._end_unconfirmed()
            case do.Abort() if self.phase is Phase.GIVING_UP:
                self._give_up(Cause.UNCONFIRMED)
            case do.SendPrompt() if self.phase is Phase.ABORTING:
                self._move(Cause.REFUSED)  # it may have arrived all the same
            case do.Open() | do.PrepareDirectory() if self.is_preparing:
                self._on_lost(item.message)
            case _ if self.phase in FOLLOWING:
                self._on_lost(item.message)

    def _on_refused(self, item: got.Refused) -> None:
        outcome = failed(item.failure) if item.failure else failed_for(item.message)
        if self.is_preparing:
            if isinstance(item.command, do.Open | do.PrepareDirectory):
                self._move(Cause.FAILED, outcome)
        elif self.phase in FOLLOWING and item.status == 404:
            self._move(Cause.FAILED, failed(_CONVERSATION_LOST))
        elif self.phase in FOLLOWING:
            self._move(Cause.REFUSED, outcome)
        else:
            self._on_unavailable(got.Unavailable(item.command, item.message))

    def _end_unconfirmed(self) -> None:
        self._commands.append(do.Warn("abort was not confirmed"))
        self._move(Cause.UNCONFIRMED)

    def _on_timer(self, timer: Timer) -> None:
        is_running = self.phase in RUNNING
        match timer:
            case Timer.REOPEN if self.is_preparing:
                self._open()
            case Timer.ABORT if self.phase is Phase.ABORTING:
                self._end_unconfirmed()
            case Timer.ABORT if self.phase is Phase.GIVING_UP:
                self._give_up(Cause.UNCONFIRMED)
            case Timer.BEGIN if self.phase is Phase.ABORTING and not self._is_abort_sent:
                self._abort()
            case Timer.DEADLINE if is_running and self._now >= self._deadline:
                seconds = self._limits.max_seconds
                text = f"the turn took longer than {seconds:g} s (SIDECAR_TURN_MAX_SECONDS)"
                self._move(Cause.DEADLINE, failed_for(text))
            case Timer.SILENCE if is_running:
                left = self._last_input_at + self._limits.watchdog_seconds - self._now
                if left <= 0:
                    self._ask_truth()
                    left = self._limits.watchdog_seconds
                self._set(Timer.SILENCE, left)

    # -- after the whole batch ---------------------------------------------------------------------

    def _decide(self) -> None:
        if self.is_over:
            self._leave()
            return
        if self.phase in RUNNING:
            self._show_calls()
        elif self._is_abort_due():
            self._abort()
        if self._is_lone_start():
            self._set(Timer.STORE, LONE_START_SECONDS)
        else:
            self._flush()
        if self.phase in FOLLOWING:
            self._commands += approvals.answer_by_policy(self._translator.open_calls.values())
            for permission_id in self._translator.take_stray_requests():
                self._commands.append(
                    do.ReplyPermission(permission_id, "reject", approvals.DENIED_TEXT)
                )

    def _is_abort_due(self) -> bool:
        """An abort that comes too early is forgotten, or breaks what opencode is just loading."""
        is_wanted = self.phase is Phase.ABORTING and not self._is_abort_sent
        return is_wanted and self._translator.has_asked_model

    def _leave(self) -> None:
        if self.phase is Phase.DETACHED:
            self._flush()
            self._commands.append(do.Detach())
        else:
            assert self._outcome is not None
            self._say(self._translator.settle())
            self._flush()
            self._commands.append(do.Finish(self._outcome))

    def _show_calls(self) -> None:
        """Show the calls that need the client; wait for it when nothing else goes on."""
        show_at = self._show_time.next(self._now)
        if show_at is None:
            return
        if self._now < show_at:
            if self._quiet_at != show_at:
                self._quiet_at = show_at
                self._set(Timer.QUIET, show_at - self._now)
            return
        self._say(self._translator.pause())
        if approvals.all_wait(self._translator.open_calls.values()):
            self._flush()
            self._waits_since = self._now
            self._move(Cause.CALLS_WAIT)
            self._commands.append(do.Wait(tuple(self.waiting_calls())))

    def _is_lone_start(self) -> bool:
        types = [draft.type for draft in self._out.drafts]
        return types == ["span.model_request_start"] and not self._out.previews
