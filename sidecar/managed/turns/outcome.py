"""How a turn can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.managed.turns.failures import Failure


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a turn: the stop reason that clients see, and the failure, if it failed."""

    stop_reason: Mapping[str, Any] = field(default_factory=lambda: {"type": "end_turn"})
    failure: Failure | None = None
    stop_details: Mapping[str, Any] | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the session ends with the turn."""
        return self.failure is not None and self.failure.retry_status == "terminal"


COMPLETED = Outcome()
"""The turn is over; one that was interrupted ends in the same way."""
REFUSED = Outcome(
    {"type": "refusal"},
    stop_details={"type": "refusal", "category": None, "explanation": None},
)


def failed(failure: Failure) -> Outcome:
    """Return the end of a turn that failed in a session that lives on."""
    return Outcome({"type": "retries_exhausted"}, failure)


def failed_for(message: str) -> Outcome:
    """Return the same for a reason that the API has no error type for."""
    return failed(Failure("unknown_error", message))
