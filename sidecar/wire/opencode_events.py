"""What a subscriber of opencode's events receives.

Source of the types and properties: `GET /global/event` of opencode 1.18.33, see tests/recordings/opencode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """One event of a session. For a sub-agent `session_id` differs from `root_session_id`."""

    type: str
    properties: dict[str, Any]
    directory: str | None
    session_id: str
    root_session_id: str


@dataclass(frozen=True, slots=True)
class ChildGap:
    """Events may have been missed. After `restarted` statuses and open questions of before are void."""

    reason: Literal["reconnected", "restarted"]
    boot: int
