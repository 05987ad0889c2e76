"""One run of opencode, as everybody but its supervisor sees it.

Mostly there is one boot at a time. While opencode is replaced there are two, over the same data: the current
one takes new turns, the retiring one finishes those that it has (`supervisor`). What belongs to a turn stays
with the turn's boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.opencode.client import ChildClient
from sidecar.opencode.health import ProcessStats

Loss = Literal["exited", "unresponsive", "ended", "overdue"]
"""Why a boot is over: it ended by itself, it answered nothing any more, it is ended on purpose, or it retired
and its turns took too long."""


@dataclass(eq=False, slots=True)
class Boot:
    """`number` counts the processes that there were, from 1; `pid` is None where it is not known."""

    number: int
    client: ChildClient
    pid: int | None = None
    is_over: bool = False
    """It has ended, or is about to be ended: whatever ran in it is lost."""
    process_stats: ProcessStats | None = None
