"""Sessions, their thread and their resources as they are answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from sidecar.wire.objects.agents import (
    SessionAgentObject,
    ThreadAgentObject,
)
from sidecar.wire.objects.common import Time

SessionStatus = Literal["rescheduling", "running", "idle", "terminated"]


class CacheCreation(TypedDict):
    """Tokens written to the prompt cache; all count as the five-minute kind."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class SessionUsage(TypedDict):
    """The tokens of all model requests of a session."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    active_seconds: float


class SessionStats(TypedDict):
    """How long the session worked, and how long it has been there."""

    active_seconds: float
    duration_seconds: float


class BranchCheckoutObject(TypedDict):
    """A branch."""

    type: Literal["branch"]
    name: str


class CommitCheckoutObject(TypedDict):
    """A commit."""

    type: Literal["commit"]
    sha: str


class ResourceObject(TypedDict):
    """A repository of the session. Its token is never answered."""

    id: str
    type: Literal["github_repository"]
    url: str
    mount_path: str
    checkout: (
        Annotated[BranchCheckoutObject | CommitCheckoutObject, Field(discriminator="type")] | None
    )
    created_at: Time
    updated_at: Time


class SessionObject(TypedDict):
    """A session, with the agent as it was when the session was made."""

    id: str
    type: Literal["session"]
    status: SessionStatus
    agent: SessionAgentObject
    environment_id: str
    title: str | None
    metadata: dict[str, str]
    resources: list[ResourceObject]
    vault_ids: list[str]
    outcome_evaluations: Annotated[list[None], Field(max_length=0)]
    stats: SessionStats
    usage: SessionUsage
    budget: None
    deployment_id: None
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class ThreadObject(TypedDict):
    """The one thread of a session, which has the session's state."""

    id: str
    type: Literal["session_thread"]
    session_id: str
    parent_thread_id: None
    status: SessionStatus
    agent: ThreadAgentObject
    stats: SessionStats
    usage: SessionUsage
    created_at: Time
    updated_at: Time
    archived_at: Time | None
