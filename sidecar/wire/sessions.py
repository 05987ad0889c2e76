"""Request bodies of the Managed Agents API: sessions and the events that clients send.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sidecar.wire.agents import MODEL_REQUIRED, ModelParam, Skills, System
from sidecar.wire.fields import (
    Body,
    Items,
    LeftOut,
    Metadata,
    MetadataPatch,
    Version,
    check_token,
    refused,
)
from sidecar.wire.tools import McpServers, Tools
from sidecar.wire.urls import check_no_secret

MAX_INITIAL_EVENTS = 50
MAX_EVENTS_PER_SEND = 1000


_BASE64_STEP = 1024 * 1024
"""Characters decoded at once: the check of a whole document would hold the interpreter all the while."""


def _check_base64(value: str) -> str:
    is_base64 = "=" not in value[:-2]
    try:
        for start in range(0, len(value), _BASE64_STEP):
            base64.b64decode(value[start : start + _BASE64_STEP], validate=True)
    except (binascii.Error, ValueError):
        is_base64 = False
    if not is_base64:
        raise ValueError("must be base64")
    return value


Base64Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_base64)]


class TextBlock(Body):
    """`{"type":"text","text":...}`."""

    type: Literal["text"]
    text: str


class Base64Source(Body):
    """Bytes in the request."""

    type: Literal["base64"]
    media_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-zA-Z0-9.+-]+$")]
    data: Base64Text


class UrlSource(Body):
    """A URL that the gateway or the model fetches."""

    type: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]


class TextSource(Body):
    """A text document in the request."""

    type: Literal["text"]
    media_type: Literal["text/plain"] = "text/plain"
    data: str


class ImageBlock(Body):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]


class DocumentBlock(Body):
    """A document: PDF bytes or plain text."""

    type: Literal["document"]
    source: Annotated[Base64Source | UrlSource | TextSource, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Body):
    """A search result inside a tool result."""

    type: Literal["search_result"]
    source: str
    title: str
    content: Items[TextBlock]
    citations: dict[str, Any] | None = None


def _text_shorthand(value: Any) -> Any:
    """Accept a plain string where blocks are expected; it is harmless and people write it."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


_MessageBlocks = Annotated[
    Items[Annotated[TextBlock | ImageBlock | DocumentBlock, Field(discriminator="type")]],
    Field(min_length=1),
]
_ResultBlocks = Items[
    Annotated[
        TextBlock | ImageBlock | DocumentBlock | SearchResultBlock, Field(discriminator="type")
    ]
]
UserContent = Annotated[
    _MessageBlocks, BeforeValidator(_text_shorthand, json_schema_input_type=str | _MessageBlocks)
]
ResultContent = Annotated[
    _ResultBlocks, BeforeValidator(_text_shorthand, json_schema_input_type=str | _ResultBlocks)
]


class UserMessage(Body):
    """Starts or continues the conversation."""

    type: Literal["user.message"]
    content: UserContent


class UserInterrupt(Body):
    """Stops the running turn."""

    type: Literal["user.interrupt"]
    session_thread_id: str | None = None


class UserToolConfirmation(Body):
    """Answers an `agent.tool_use` or `agent.mcp_tool_use` that waits for permission."""

    type: Literal["user.tool_confirmation"]
    tool_use_id: str
    result: Literal["allow", "deny"]
    deny_message: str | None = None

    @model_validator(mode="after")
    def _message_only_with_deny(self) -> UserToolConfirmation:
        if self.deny_message is not None and self.result != "deny":
            raise ValueError("deny_message is only allowed with result deny")
        return self


class UserCustomToolResult(Body):
    """Answers an `agent.custom_tool_use`."""

    type: Literal["user.custom_tool_result"]
    custom_tool_use_id: str
    content: ResultContent | None = None
    is_error: bool | None = None


class UserToolResult(Body):
    """Answers a built-in tool in a self-hosted environment; refused elsewhere."""

    type: Literal["user.tool_result"]
    tool_use_id: str
    content: ResultContent | None = None
    is_error: bool | None = None


class SystemMessage(Body):
    """An instruction in the middle of a conversation."""

    type: Literal["system.message"]
    content: Annotated[Items[TextBlock], Field(min_length=1, max_length=1000)]


ClientEvent = Annotated[
    UserMessage
    | UserInterrupt
    | UserToolConfirmation
    | UserCustomToolResult
    | UserToolResult
    | SystemMessage,
    Field(discriminator="type"),
]


class EventsSend(Body):
    """`POST /v1/sessions/{id}/events`: all events are valid, or none is accepted."""

    events: Annotated[Items[ClientEvent], Field(min_length=1, max_length=MAX_EVENTS_PER_SEND)]


class AgentReference(Body):
    """An agent, optionally pinned to a version."""

    type: Literal["agent"]
    id: str
    version: Version | None = None


class AgentWithOverrides(Body):
    """An agent with changes that hold for one session; null or [] clears, a value replaces."""

    type: Literal["agent_with_overrides"]
    id: str
    version: Version | None = None
    model: ModelParam | None = None
    system: System | None = None
    tools: Tools | None = None
    mcp_servers: McpServers | None = None
    skills: Skills | None = None

    @model_validator(mode="before")
    @classmethod
    def _model_cannot_be_cleared(cls, data: Any) -> Any:
        if isinstance(data, dict) and "model" in data and data["model"] is None:
            raise PydanticCustomError(
                MODEL_REQUIRED, "model: cannot be cleared; omit it to use the agent's model"
            )
        return data


def _agent_object(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": "agent", "id": value}
    if isinstance(value, dict):
        return value
    raise ValueError(
        'must be an agent id or an object such as {"type": "agent", "id": "agent_..."}'
    )


_AgentChoice = Annotated[AgentReference | AgentWithOverrides, Field(discriminator="type")]
AgentParam = Annotated[
    _AgentChoice, BeforeValidator(_agent_object, json_schema_input_type=str | _AgentChoice)
]


class BranchCheckout(Body):
    """Check out a branch."""

    type: Literal["branch"]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$", max_length=255)]


class CommitCheckout(Body):
    """Check out a commit."""

    type: Literal["commit"]
    sha: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{7,64}$")]


GitToken = Annotated[
    str, StringConstraints(min_length=1, max_length=4096), AfterValidator(check_token)
]


def _check_repository_url(url: str) -> str:
    return check_no_secret(url, place="a token goes into authorization_token")


class GithubRepository(Body):
    """A repository cloned into the session's directory; the token is write-only."""

    type: Literal["github_repository"]
    url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://\S+$", max_length=2048),
        AfterValidator(_check_repository_url),
    ]
    authorization_token: GitToken | None = None
    checkout: Annotated[
        Annotated[BranchCheckout | CommitCheckout, Field(discriminator="type")] | None, LeftOut
    ] = None
    mount_path: Annotated[str, StringConstraints(pattern=r"^/\S*$", max_length=512)] | None = None


_ONLY_THE_TOKEN = refused(
    "cannot be changed: only the token can; give another session the resource"
)


class ResourceUpdate(Body):
    """`POST /v1/sessions/{id}/resources/{resource}`: only the token can change."""

    authorization_token: GitToken
    url: Annotated[None, _ONLY_THE_TOKEN] = None
    checkout: Annotated[None, _ONLY_THE_TOKEN] = None
    mount_path: Annotated[None, _ONLY_THE_TOKEN] = None


Budget = Annotated[
    None, refused("is not offered: this sidecar knows no prices to hold it against; leave it out")
]


class SessionCreate(Body):
    """`POST /v1/sessions`."""

    agent: AgentParam
    environment_id: str
    title: Annotated[str, StringConstraints(max_length=1024)] | None = None
    metadata: Metadata | None = None
    initial_events: Annotated[Items[UserMessage], Field(max_length=MAX_INITIAL_EVENTS)] | None = (
        None
    )
    resources: Annotated[Items[GithubRepository], Field(max_length=20)] | None = None
    vault_ids: Annotated[Items[str], Field(max_length=20)] | None = None
    budget: Budget = None


_FOR_ANOTHER_SESSION = refused(
    "cannot be changed; create another session, whose agent is of type agent_with_overrides"
)


class SessionAgentUpdate(Body):
    """`agent` of a session update: full replacement of its tools and servers. Anything else is refused: what
    stands here is meant to change the agent, and would not."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    tools: Tools | None = None
    mcp_servers: McpServers | None = None
    model: Annotated[None, _FOR_ANOTHER_SESSION] = None
    system: Annotated[None, _FOR_ANOTHER_SESSION] = None


_STAYS = refused("cannot be changed; create another session")


class SessionUpdate(Body):
    """`POST /v1/sessions/{id}`."""

    title: Annotated[str, StringConstraints(max_length=1024)] | None = None
    metadata: MetadataPatch | None = None
    agent: SessionAgentUpdate | None = None
    budget: Budget = None
    vault_ids: Annotated[
        None, refused("cannot be changed; create another session with these vaults")
    ] = None
    environment_id: Annotated[None, _STAYS] = None
    resources: Annotated[None, _STAYS] = None
    initial_events: Annotated[
        None, refused("are of a new session; send events to POST /v1/sessions/{id}/events")
    ] = None
