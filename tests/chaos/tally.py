"""How the turns of many sessions ended: what the programs of this folder that only count turns share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.event_rules import check_events
from tests.harness import text_of
from tests.raw_client import RawClient

SAID = "done"
TURN = f"[[bash: echo hello]] [[then]] [[say: {SAID}]]"
"""A turn that calls a tool and answers."""


@dataclass
class Tally:
    """Turns that ended well, and the errors of the others."""

    turns: int
    """How many there were to be."""
    good: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """What all of them took."""
    boots: int = 0
    """How many opencodes there were."""

    @property
    def cut(self) -> int:
        """How many turns did not end well."""
        return self.turns - self.good

    @property
    def per_minute(self) -> float:
        """Turns per minute."""
        return 60 * self.good / self.seconds

    async def count(self, raw: RawClient, session_id: str) -> None:
        """Look at a session's whole log, which must be sound."""
        events = await raw.events(session_id)
        check_events(events)
        self.errors.update(
            event["error"]["message"][:80] for event in events if event["type"] == "session.error"
        )
        messages = [event for event in events if event["type"] == "agent.message"]
        self.good += sum(text_of([message]) == SAID for message in messages)
