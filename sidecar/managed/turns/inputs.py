"""What a turn hears of, and how it can end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sidecar.managed.turns.failures import Failure
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted
from sidecar.wire.opencode_events import ChildEvent, ChildGap


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


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The session is being archived or deleted while its turn waits for the client."""


InboxItem: TypeAlias = (
    ChildEvent
    | ChildGap
    | ModelRequestStarted
    | ModelRequestEnded
    | Interrupt
    | ClientAnswer
    | ChildLost
    | Stopping
    | Dismissed
)


class Detached(Exception):  # noqa: N818  # a way out, not an error
    """The task ends and the turn does not: it waits for the client, or for the next start."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended."""

    stop_reason: Mapping[str, Any] = field(default_factory=lambda: {"type": "end_turn"})
    failure: Failure | None = None
    stop_details: Mapping[str, Any] | None = None
    settle_text: str = "interrupted before completion"

    @property
    def is_terminal(self) -> bool:
        """Whether the session ends with the turn."""
        return self.failure is not None and self.failure.retry_status == "terminal"


def failed(failure: Failure) -> Outcome:
    """The turn is dead, the session lives on."""
    return Outcome({"type": "retries_exhausted"}, failure)


REFUSED = Outcome(
    {"type": "refusal"},
    stop_details={"type": "refusal", "category": None, "explanation": None},
)
