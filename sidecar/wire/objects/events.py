"""Events of a session: as they are listed, and as the frames of its stream.

An event in a list whose `processed_at` is null waits in the session's queue. The tokens `text`, `output` and
`error` are plain copies of the content, which LAP shows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from sidecar.wire.objects.agents import SessionAgentObject
from sidecar.wire.objects.common import Time
from sidecar.wire.objects.sessions import SessionUsage


class TextContent(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


class Base64Content(TypedDict):
    """Bytes."""

    type: Literal["base64"]
    media_type: str
    data: str


class UrlContent(TypedDict):
    """A URL."""

    type: Literal["url"]
    url: str


class PlainTextContent(TypedDict):
    """The text of a document."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class ImageContent(TypedDict):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Content | UrlContent, Field(discriminator="type")]


class DocumentContent(TypedDict):
    """A document."""

    type: Literal["document"]
    source: Annotated[Base64Content | UrlContent | PlainTextContent, Field(discriminator="type")]
    title: NotRequired[str]
    context: NotRequired[str]


class SearchResultContent(TypedDict):
    """A search result."""

    type: Literal["search_result"]
    source: str
    title: str
    content: list[TextContent]
    citations: NotRequired[dict[str, Any]]


MessageContent = Annotated[
    TextContent | ImageContent | DocumentContent, Field(discriminator="type")
]
ToolContent = Annotated[
    TextContent | ImageContent | DocumentContent | SearchResultContent,
    Field(discriminator="type"),
]


class _Event(TypedDict):
    id: str
    processed_at: Time | None


class UserMessageEvent(_Event):
    """A message of the client."""

    type: Literal["user.message"]
    content: list[MessageContent]


class UserInterruptEvent(_Event):
    """The client stopped the turn."""

    type: Literal["user.interrupt"]
    session_thread_id: NotRequired[str]


class UserToolConfirmationEvent(_Event):
    """The client allowed or denied a call."""

    type: Literal["user.tool_confirmation"]
    tool_use_id: str
    result: Literal["allow", "deny"]
    deny_message: NotRequired[str]


class UserCustomToolResultEvent(_Event):
    """The result of a custom tool; of the sidecar itself where the turn ended before it came."""

    type: Literal["user.custom_tool_result"]
    custom_tool_use_id: str
    content: NotRequired[list[ToolContent]]
    is_error: NotRequired[bool]
    output: NotRequired[str]
    error: NotRequired[str]


class SystemMessageEvent(_Event):
    """An instruction in the middle of the conversation."""

    type: Literal["system.message"]
    content: list[TextContent]


class AgentMessageEvent(_Event):
    """What the agent wrote."""

    type: Literal["agent.message"]
    content: list[TextContent]
    text: str


class AgentThinkingEvent(_Event):
    """The agent thought."""

    type: Literal["agent.thinking"]


class Evaluation(TypedDict):
    """The policy that decided."""

    type: Literal["always_allow", "always_ask"]


class AgentToolUseEvent(_Event):
    """A call of a built-in tool."""

    type: Literal["agent.tool_use"]
    name: str
    input: dict[str, Any]
    evaluated_permission: Literal["allow", "ask", "deny"]
    evaluation: NotRequired[Evaluation]


class AgentMcpToolUseEvent(_Event):
    """A call of an MCP server's tool."""

    type: Literal["agent.mcp_tool_use"]
    name: str
    input: dict[str, Any]
    mcp_server_name: str
    evaluated_permission: Literal["allow", "ask", "deny"]
    evaluation: NotRequired[Evaluation]


class AgentCustomToolUseEvent(_Event):
    """A call that the client executes."""

    type: Literal["agent.custom_tool_use"]
    name: str
    input: dict[str, Any]


class AgentToolResultEvent(_Event):
    """The result of a built-in tool."""

    type: Literal["agent.tool_result"]
    tool_use_id: str
    content: list[ToolContent]
    is_error: bool
    output: NotRequired[str]
    error: NotRequired[str]


class AgentMcpToolResultEvent(_Event):
    """The result of an MCP server's tool."""

    type: Literal["agent.mcp_tool_result"]
    mcp_tool_use_id: str
    content: list[ToolContent]
    is_error: bool
    output: NotRequired[str]
    error: NotRequired[str]


class ContextCompactedEvent(_Event):
    """opencode summarised the conversation to make room."""

    type: Literal["agent.thread_context_compacted"]


class EndTurn(TypedDict):
    """The turn is over."""

    type: Literal["end_turn"]


class RequiresAction(TypedDict):
    """The calls with these event ids wait for the client."""

    type: Literal["requires_action"]
    event_ids: list[str]


class RetriesExhausted(TypedDict):
    """The turn failed; the error is in the `session.error` before."""

    type: Literal["retries_exhausted"]


class RefusalDetails(TypedDict):
    """Why the model refused, as far as it is known."""

    type: Literal["refusal"]
    category: str | None
    explanation: str | None


class Refusal(TypedDict):
    """The model refused; the event's `stop_details` say more."""

    type: Literal["refusal"]


StopReason = Annotated[
    EndTurn | RequiresAction | RetriesExhausted | Refusal, Field(discriminator="type")
]


class StatusRunningEvent(_Event):
    """The session works."""

    type: Literal["session.status_running"]


class StatusIdleEvent(_Event):
    """The session waits for the client. It is the last event of a turn."""

    type: Literal["session.status_idle"]
    stop_reason: StopReason
    stop_details: NotRequired[RefusalDetails]


class StatusRescheduledEvent(_Event):
    """A model request failed and is tried again."""

    type: Literal["session.status_rescheduled"]


class StatusTerminatedEvent(_Event):
    """The session has ended for good."""

    type: Literal["session.status_terminated"]


class _ThreadEvent(_Event):
    session_thread_id: str
    agent_name: str


class ThreadStatusRunningEvent(_ThreadEvent):
    """The session's thread works."""

    type: Literal["session.thread_status_running"]


class ThreadStatusIdleEvent(_ThreadEvent):
    """The session's thread waits for the client."""

    type: Literal["session.thread_status_idle"]
    stop_reason: StopReason
    stop_details: NotRequired[RefusalDetails]


class ThreadStatusRescheduledEvent(_ThreadEvent):
    """A model request of the thread is tried again."""

    type: Literal["session.thread_status_rescheduled"]


class ThreadStatusTerminatedEvent(_ThreadEvent):
    """The session's thread has ended for good."""

    type: Literal["session.thread_status_terminated"]


class SessionUsageEvent(_Event):
    """The tokens of the session so far."""

    type: Literal["session.usage"]
    usage: SessionUsage
    budget: None


class SessionUpdatedEvent(_Event):
    """What a client changed of the session."""

    type: Literal["session.updated"]
    title: NotRequired[str | None]
    metadata: NotRequired[dict[str, str]]
    agent: NotRequired[SessionAgentObject]


class RetryStatus(TypedDict):
    """What can be done: send another message, or make another session."""

    type: Literal["retrying", "exhausted", "terminal"]


FailureType = Literal[
    "unknown_error",
    "model_overloaded_error",
    "model_rate_limited_error",
    "model_request_failed_error",
    "billing_error",
    "mcp_connection_failed_error",
    "mcp_authentication_failed_error",
    "repository_authentication_error",
    "repository_forbidden_error",
    "repository_not_found_error",
    "repository_checkout_error",
    "repository_clone_error",
]
"""Why a turn fails: the types that the official SDKs know."""


class TurnError(TypedDict):
    """Why a turn failed."""

    type: FailureType
    message: str
    retry_status: RetryStatus
    mcp_server_name: NotRequired[str]
    repository_url: NotRequired[str | None]


class SessionErrorEvent(_Event):
    """Something failed."""

    type: Literal["session.error"]
    error: TurnError


class ModelRequestStartEvent(_Event):
    """The model is asked."""

    type: Literal["span.model_request_start"]


class ModelUsage(TypedDict):
    """The tokens of one model request."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class ModelRequestEndEvent(_Event):
    """The model has answered; `is_error` is null where the request was cut off."""

    type: Literal["span.model_request_end"]
    model_request_start_id: str
    is_error: bool | None
    model_usage: ModelUsage


SessionEvent = Annotated[
    UserMessageEvent
    | UserInterruptEvent
    | UserToolConfirmationEvent
    | UserCustomToolResultEvent
    | SystemMessageEvent
    | AgentMessageEvent
    | AgentThinkingEvent
    | AgentToolUseEvent
    | AgentMcpToolUseEvent
    | AgentCustomToolUseEvent
    | AgentToolResultEvent
    | AgentMcpToolResultEvent
    | ContextCompactedEvent
    | StatusRunningEvent
    | StatusIdleEvent
    | StatusRescheduledEvent
    | StatusTerminatedEvent
    | ThreadStatusRunningEvent
    | ThreadStatusIdleEvent
    | ThreadStatusRescheduledEvent
    | ThreadStatusTerminatedEvent
    | SessionUsageEvent
    | SessionUpdatedEvent
    | SessionErrorEvent
    | ModelRequestStartEvent
    | ModelRequestEndEvent,
    Field(discriminator="type"),
]


class SessionDeletedFrame(_Event):
    """The last frame of a stream whose session was deleted."""

    type: Literal["session.deleted"]


class PreviewedEvent(TypedDict):
    """The event that is being written."""

    type: Literal["agent.message", "agent.thinking"]
    id: str


class EventStartFrame(TypedDict):
    """An event has begun; sent to those who ask by `event_deltas[]`."""

    type: Literal["event_start"]
    event: PreviewedEvent


class ContentDelta(TypedDict):
    """Text that was added."""

    type: Literal["content_delta"]
    index: int
    content: TextContent


class EventDeltaFrame(TypedDict):
    """More of an event's text; sent to those who ask by `event_deltas[]`."""

    type: Literal["event_delta"]
    event_id: str
    delta: ContentDelta


StreamFrame = Annotated[
    SessionEvent | SessionDeletedFrame | EventStartFrame | EventDeltaFrame,
    Field(discriminator="type"),
]


class AcceptedEvents(TypedDict):
    """The events as they were accepted."""

    data: list[SessionEvent]


class EventPage(TypedDict):
    """A page of events; `next_page` is null at the end."""

    data: list[SessionEvent]
    next_page: str | None
