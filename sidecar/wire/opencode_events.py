"""What a subscriber of opencode's events receives.

Source of the types and properties: `GET /global/event` of opencode 1.18.33, see tests/recordings/opencode.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_PROMPT_PART = re.compile(r"prt_[0-9A-Z]{26}[0-9]{4}\Z")


def prompt_part_id(message_id: str, number: int) -> str:
    """Return the id of a part of a prompt of ours, so that it sorts by number and is known as ours."""
    return f"{message_id.replace('msg_', 'prt_', 1)}{number:04}"


def is_prompt_part(part_id: str) -> bool:
    """Whether the id is of a part of a prompt of ours. opencode's own ids are shorter, with small letters."""
    return _PROMPT_PART.match(part_id) is not None


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
    """Events of a boot of opencode may have been missed: its stream broke and is read again."""

    boot: int


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """A durable change of one opencode session, numbered from 0: `payload.syncEvent` of a `sync` event."""

    id: str
    type: str
    seq: int
    aggregate: str
    """The opencode session (`aggregateID`)."""
    data: dict[str, Any]

    @classmethod
    def read(cls, value: Any) -> SyncEvent | None:
        """Return the event, None for what is none."""
        match value:
            case {
                "id": str(id_),
                "type": str(type_),
                "seq": int(seq),
                "aggregateID": str(aggregate),
                "data": dict(data),
            }:
                return cls(id_, type_, seq, aggregate, data)
        return None

    def to_wire(self) -> dict[str, Any]:
        """Return what `/sync/replay` takes."""
        return {
            "id": self.id,
            "type": self.type,
            "seq": self.seq,
            "aggregateID": self.aggregate,
            "data": self.data,
        }
