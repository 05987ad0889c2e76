"""The phases of a turn, and the causes that move it. `machine.TRANSITIONS` has the legal moves."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a turn is."""

    PREPARING = "the directory is prepared and the session opened in opencode"
    RESENDING = "the prompt may be lost: opencode is asked, and sent it once more"
    SENT = "opencode has the prompt and shows no work yet"
    WORKING = "opencode works"
    RETRYING = "a model request failed and opencode waits before the next try"
    WAITING = "calls wait for the client, and nothing goes on without it"
    ABORTING = "opencode has to stop, and to confirm it"
    GIVING_UP = "opencode is asked to stop; whatever it answers, the turn is over"
    ENDED = "the terminal event is written"
    DETACHED = (
        "the task is over and the turn is not: it waits for the client, or for the next start"
    )


class Cause(Enum):
    """What can move a turn from one phase to another."""

    OPENED = "the session is open"
    TAKEN = "opencode has the prompt already"
    UNREADY = "opencode cannot be reached yet"
    FAILED = "the turn cannot go on"
    WORK = "the first sign of work"
    RETRY = "a long wait for another try"
    RESUMED = "the next try begins"
    CALLS_WAIT = "all open calls wait for the client"
    ANSWER = "the client answers"
    IDLE = "opencode is done"
    LOST = "opencode, or the prompt, is lost"
    REFUSED = "opencode refuses a request"
    DEADLINE = "the turn takes too long"
    VIOLATION = "the session breaks a bound or a rule"
    INTERRUPT = "the client interrupts"
    DISMISSED = "the session is archived or deleted"
    DRAINED = "the sidecar is being drained"
    STOPPING = "the sidecar stops"
    STOPPED = "opencode confirms the abort"
    UNCONFIRMED = "no confirmation comes"
    LET_GO = "opencode is asked, and the turn stays open"


FOLLOWING = frozenset({Phase.SENT, Phase.WORKING, Phase.RETRYING, Phase.WAITING})
"""opencode has the prompt and may go on with it."""
RUNNING = FOLLOWING - {Phase.WAITING}
"""The same, while the turn does not wait for its client."""
OVER = frozenset({Phase.ENDED, Phase.DETACHED})
"""The turn needs no task any more."""
