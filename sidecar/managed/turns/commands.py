"""What a turn wants done. The runner executes commands in order and reports results as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sidecar.managed.events.event import Draft, Preview
from sidecar.managed.turns.outcome import Outcome
from sidecar.managed.turns.timing import Timer
from sidecar.model_requests import Usage

# -- to opencode; each is answered by an input of `sidecar.managed.turns.inputs`, or by none -------


@dataclass(frozen=True, slots=True)
class PrepareDirectory:
    """Clone what the session's directory lacks. Answered by `Prepared`."""


@dataclass(frozen=True, slots=True)
class Open:
    """Wait for opencode, open the session in it and follow its events. Answered by `Opened`.

    With `is_repeated` the directory is loaded anew, and opencode is asked whether it has taken the prompt.
    """

    wait_seconds: float
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Let go of the session that was opened: its events are no longer followed."""


@dataclass(frozen=True, slots=True)
class SendPrompt:
    """Send the turn's prompt."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Ask opencode to stop working on the session, before anything else. Answered by `Aborted`."""


@dataclass(frozen=True, slots=True)
class AskBusy:
    """Ask whether opencode works on the session. Answered by `Busy`."""


@dataclass(frozen=True, slots=True)
class ReadTruth:
    """Read status and messages, because events may have been missed. Answered by `Truth`."""


@dataclass(frozen=True, slots=True)
class ReplyPermission:
    """Answer a permission request."""

    permission_id: str
    reply: Literal["once", "reject"]
    message: str | None = None


@dataclass(frozen=True, slots=True)
class RejectQuestion:
    """Refuse a question that a tool asks the user: there is no user at opencode."""

    question_id: str


ChildCommand: TypeAlias = (
    PrepareDirectory
    | Open
    | Close
    | SendPrompt
    | Abort
    | AskBusy
    | ReadTruth
    | ReplyPermission
    | RejectQuestion
)

# -- to the session: durable before any later command is executed ----------------------------------


@dataclass(frozen=True, slots=True)
class Append:
    """Append events to the log, count tokens, show previews (these first)."""

    drafts: Sequence[Draft] = ()
    previews: Sequence[Preview] = ()
    used: Sequence[Usage] = ()


@dataclass(frozen=True, slots=True)
class NotePrompt:
    """Note the session in opencode, and that the prompt is sent for the second time."""

    child_session_id: str
    is_repeated: bool


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Show that the session waits for another try of a model request."""


@dataclass(frozen=True, slots=True)
class Run:
    """Show that the wait for another try is over."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Show that the turn waits until the client has answered these events."""

    event_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the turn's terminal event."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Detach:
    """Leave the turn open without a task: it waits for the client, or for the next start."""


# -- to the runner itself --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GiveToolResult:
    """Give the client's result to the custom call of that name and input."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    content: Sequence[Mapping[str, Any]] = ()
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Report `Fired(timer)` after that time."""

    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class Warn:
    """Log a warning about the session."""

    message: str


Command: TypeAlias = (
    ChildCommand
    | Append
    | NotePrompt
    | Reschedule
    | Run
    | Wait
    | Finish
    | Detach
    | GiveToolResult
    | SetTimer
    | Warn
)
