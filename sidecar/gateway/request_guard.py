"""How many model requests a turn may make: a bound on what a loop costs, whatever its cause.

opencode asks the model again when an answer has no end that it knows, and then at once and without end.
The relay makes such answers broken ones, but there may be loops that it does not know of. A turn here is
what opencode does in a session from idle to idle; requests of sub-agents belong to the turn of their root.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from sidecar.model_requests import RequestFailure

Reason = Literal["no_progress", "turn_limit"]

_MAX_KNOWN = 10_000
"""Sessions kept in mind. Those of idle ones are forgotten at once."""


@dataclass(slots=True)
class _Counts:
    parent: str
    requests: int = 0
    """Of the turn; those of sub-agents are counted at their root."""
    in_vain: int = 0
    """The latest in a row that brought neither a tool call nor a finished message."""


class RequestGuard:
    """Counts the requests per opencode session, and says which must not be sent.

    A refused session stays refused until it is idle. `refusals` counts by reason over all sessions.
    """

    def __init__(self, *, max_without_progress: int = 12, max_per_turn: int = 500) -> None:
        self.max_per_turn = max_per_turn
        self._max_without_progress = max_without_progress
        self._sessions: OrderedDict[str, _Counts] = OrderedDict()
        self.refusals: dict[Reason, int] = {"no_progress": 0, "turn_limit": 0}

    @property
    def largest_turn(self) -> int:
        """The model requests of the running turn that has made the most."""
        return max((counts.requests for counts in self._sessions.values()), default=0)

    def begin(self, session_id: str, parent_id: str = "") -> RequestFailure | None:
        """Count a request; return why it must not be sent, None when it may."""
        if not session_id:
            return None
        counts = self._of(session_id, parent_id)
        root = self._root(counts)
        root.requests += 1
        if counts.in_vain >= self._max_without_progress:
            self.refusals["no_progress"] += 1
            text = (
                f"stopped after {counts.in_vain} model requests in a row that brought neither a tool "
                "call nor a finished message (SIDECAR_TURN_MAX_REQUESTS_WITHOUT_PROGRESS)"
            )
            return RequestFailure("limit", text)
        if root.requests > self.max_per_turn:
            self.refusals["turn_limit"] += 1
            text = (
                f"stopped after {self.max_per_turn} model requests of one turn "
                "(SIDECAR_TURN_MAX_MODEL_REQUESTS)"
            )
            return RequestFailure("limit", text)
        return None

    def end(self, session_id: str, *, is_progress: bool) -> None:
        """Note what came of a request that was sent."""
        counts = self._sessions.get(session_id)
        if counts is not None:
            counts.in_vain = 0 if is_progress else counts.in_vain + 1

    def forget(self, session_id: str) -> None:
        """Forget the counts of a session that is idle, and of its sub-agents."""
        self._sessions.pop(session_id, None)
        for child_id in [s for s, counts in self._sessions.items() if counts.parent == session_id]:
            self.forget(child_id)

    def forget_all(self) -> None:
        """It is not known any more which sessions are idle."""
        self._sessions.clear()

    def _of(self, session_id: str, parent_id: str) -> _Counts:
        counts = self._sessions.get(session_id)
        if counts is None:
            counts = self._sessions[session_id] = _Counts(parent_id)
            if len(self._sessions) > _MAX_KNOWN:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(session_id)
        return counts

    def _root(self, counts: _Counts) -> _Counts:
        seen = {id(counts)}
        while (parent := self._sessions.get(counts.parent)) is not None and id(parent) not in seen:
            seen.add(id(parent))
            counts = parent
        return counts
