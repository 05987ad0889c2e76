"""What a turn reacts to: news of opencode, of the relay, of the client, and the results of its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sidecar.managed.turns.commands import ChildCommand
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.timing import Timer
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted
from sidecar.wire.opencode_events import ChildEvent, ChildGap

# -- of the client ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The client wants the turn to stop."""


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """The client's accepted answer to a call: a confirmation, or the result of a custom tool."""

    tool_use_id: str
    result: Literal["allow", "deny"]
    message: str | None = None
    content: Sequence[Mapping[str, Any]] = ()
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The session is being archived or deleted while its turn waits for the client."""


# -- of the sidecar -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildLost:
    """The opencode process died or is being replaced; `reason` completes the sentence "opencode ..."."""

    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The session breaks a bound or a rule for which its turn has to end."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Draining:
    """The sidecar will be stopped: a prompt that opencode does not have yet is left to the next start."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The sidecar is being stopped and waits no longer."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A timer ran out."""

    timer: Timer


# -- results of commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """The session's directory is there; `failures` are the repositories that could not be cloned."""

    failures: Sequence[Failure] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """The turn had to wait for a place in opencode, and has one now; it is still to be opened."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is open in opencode and its events are followed.

    `has_taken` says that opencode has the prompt already.
    """

    child_session_id: str
    has_taken: bool = False


@dataclass(frozen=True, slots=True)
class Aborted:
    """opencode has taken the request to stop."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Whether opencode works on the session."""

    is_busy: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """What opencode has of the session: `messages` as `GET /session/{id}/message` lists them."""

    is_busy: bool
    messages: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Unavailable:
    """opencode could not be reached, or did not answer in time."""

    command: ChildCommand
    message: str
    is_slow: bool = False
    """It did not answer in time, and may have done what it was asked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A command failed for another reason; `status` is what opencode answered, if it did."""

    command: ChildCommand
    message: str
    status: int | None = None
    failure: Failure | None = None
    """The same as `session.error` shows it, when there is more to say than the message."""


Input: TypeAlias = (
    ChildEvent
    | ChildGap
    | ModelRequestStarted
    | ModelRequestEnded
    | Interrupt
    | ClientAnswer
    | Dismissed
    | Violation
    | ChildLost
    | Draining
    | Stopping
    | Fired
    | Prepared
    | Placed
    | Opened
    | Aborted
    | Busy
    | Truth
    | Unavailable
    | Refused
)
