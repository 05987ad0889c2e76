"""The model requests of the child: what the relay reports of each, and the tokens that it took.

Pure. The relay makes these, turns and metrics read them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

FailureKind = Literal[
    "overloaded",
    "rate_limited",
    "authentication",
    "billing",
    "refusal",
    "failed",
    "timeout",
    "not_sse",
    "wrong_format",
    "incomplete",
    "redirected",
    "limit",
    "cancelled",
]
"""`not_sse`: no event stream, and no answer either. `wrong_format`: an answer in the format of another API
than was asked. `incomplete`: the stream ended without its terminal mark. `redirected`: to where our key must
not go. `limit`: the relay refused it, because the turn had made too many. `cancelled`: the child went away
first, as it does when a turn is aborted. `refusal`: the model answered, with a refusal."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one model request, or a sum of several. `input_tokens` excludes both cache counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return the sum, count by count."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
        )

    def to_api(self) -> dict[str, int]:
        """Return the API's `model_usage` object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a model request failed; the message is cut and carries no key."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class ModelRequestStarted:
    """The child asked for a completion. `started_at` is seconds since the epoch.

    `child_session_id` and `parent_session_id` (sub-agents) are opencode's own session ids, from
    `x-session-id` and `x-parent-session-id`; empty when the child sent none.
    """

    request_id: str
    child_session_id: str = ""
    parent_session_id: str = ""
    model: str = ""
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelRequestEnded:
    """The end of one. `status` is what the child was answered, 0 when nothing.

    `first_byte_seconds` is the time to the first body byte, None when there was none. `calls` is how many
    calls of tools the answer has, at the least.
    """

    request_id: str
    child_session_id: str = ""
    parent_session_id: str = ""
    model: str = ""
    status: int = 0
    usage: Usage | None = None
    failure: RequestFailure | None = None
    started_at: float = 0.0
    first_byte_seconds: float | None = None
    seconds: float = 0.0
    calls: int = 0

    @property
    def is_error(self) -> bool | None:
        """Whether the request failed, as `span.model_request_end` shows it: None for one that was cut.

        A refusal is an answer, not an error.
        """
        if self.failure is not None and self.failure.kind == "cancelled":
            return None
        return self.failure is not None and self.failure.kind != "refusal"
