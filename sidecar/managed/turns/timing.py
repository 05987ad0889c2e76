"""The timers of a turn, and how long each of them runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PAUSE_QUIET_SECONDS = 0.15
"""The calls of one model request arrive one by one; after this much quiet they are shown together."""
MISSING_CALL_SECONDS = 10.0
"""The same while the answer is known to have a call that opencode has not reported: under load it lags."""
LONE_START_SECONDS = 0.005
"""The start of a model request is stored this much later, or before the next input: at once it would
compete with the request itself."""
BEGIN_WAIT_SECONDS = 5.0
"""How long an interrupt waits for opencode to ask the model, usually 0.1 s; then it aborts all the same."""
ABORT_WAIT_SECONDS = 30.0
"""Bound for opencode to confirm an abort; it takes 0.1 s, under full load seconds."""
STOP_WAIT_SECONDS = 5.0
"""The same while the sidecar is being stopped."""
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 1.0
"""Pauses between two tries to open the session in opencode: a dead child is noticed within the first ones."""


class Timer(Enum):
    """The name of a timer; setting it again replaces it."""

    QUIET = "calls are shown"
    STORE = "a lone start is stored"
    SILENCE = "no input for too long"
    DEADLINE = "the turn takes too long"
    REOPEN = "opencode is tried again"
    BEGIN = "an interrupt waits for the first model request"
    ABORT = "opencode has to confirm an abort"


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that a turn depends on."""

    watchdog_seconds: float = 30.0
    """Silence after which opencode is asked whether it still works."""
    max_seconds: float = 7200.0
    """Upper bound of the turn, without the time in which it waits for the client."""
    retry_notice_seconds: float = 2.0
    """A wait for another try of the model request is shown when it is at least this long."""
    prompt_wait_seconds: float = 90.0
    """How long opencode is waited for before the prompt is sent."""
    is_split: bool = False
    """Whether long messages are shown paragraph by paragraph."""
