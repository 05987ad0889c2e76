"""Notices when a permission request is allowed by anything but the sidecar.

Only the sidecar answers opencode's permission requests: by policy, or when a client has confirmed. A
`permission.replied` that allows what the sidecar did not allow in the same words means that another program
has opencode's password.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import structlog

from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import Violation
from sidecar.wire.opencode_events import ChildEvent

_KEPT = 10_000
"""Answers remembered. opencode reports one at once, so that few are ever on their way."""
_TEXT = "a permission request was allowed by something other than the client; the turn was ended"

_log = structlog.get_logger(__name__)


class PermissionWatch:
    """Compares what opencode reports with what was sent. `alarms` counts what was not."""

    def __init__(self) -> None:
        self._sent: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self.alarms = 0

    def note_sent(self, permission_id: str, reply: Literal["once", "reject"]) -> None:
        """An answer is about to be sent."""
        self._sent.append((permission_id, reply))

    def alarm_of(self, event: ChildEvent) -> Violation | None:
        """Return what ends the session's turn if the event is an answer that we did not send.

        A rejection is none: opencode rejects what is open when a turn ends. What allows is ours only if we
        sent the same: where we rejected, another program may have been faster with more.
        """
        reply = event.properties.get("reply")
        if event.type != "permission.replied" or reply == "reject":
            return None
        if (event.properties.get("requestID"), reply) in self._sent:
            return None
        self.alarms += 1
        _log.critical(
            "permission answered by another program",
            child_session=event.session_id,
            permission=event.properties.get("requestID"),
        )
        return Violation(Failure("unknown_error", _TEXT))
