"""Request bodies of agents, and what else may name a model.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints, model_validator

from sidecar.wire.fields import (
    Body,
    Description,
    Items,
    LeftOut,
    Metadata,
    MetadataPatch,
    Name,
    Version,
    refused,
)
from sidecar.wire.model_bounds import MAX_TYPED_NAME_CHARS
from sidecar.wire.tools import McpServers, Tools

MAX_SYSTEM_CHARS = 100_000
MODEL_REQUIRED = "agent_model_required"
"""An `error_code` that a validator gives as the type of its error."""

System = Annotated[str, StringConstraints(max_length=MAX_SYSTEM_CHARS)]
EffortLevel = Literal["low", "medium", "high", "xhigh", "max"]


class Effort(Body):
    """`{"type": "high"}`."""

    type: EffortLevel


def _effort_object(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class ModelConfig(Body):
    """A model with options; a bare string is taken as its id."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TYPED_NAME_CHARS)]
    effort: Annotated[
        Effort | None,
        BeforeValidator(_effort_object, json_schema_input_type=EffortLevel | Effort | None),
    ] = None
    speed: Literal["standard"] | None = None
    inference_geo: Annotated[
        None, refused("is not offered by this sidecar: where a model runs is up to the gateway")
    ] = None


def _model_object(value: Any) -> Any:
    if isinstance(value, str):
        return {"id": value}
    if isinstance(value, dict):
        return value
    raise ValueError('must be a model id or an object such as {"id": "claude-sonnet-4-5"}')


ModelParam = Annotated[
    ModelConfig, BeforeValidator(_model_object, json_schema_input_type=str | ModelConfig)
]


class ExecutionIdentity(Body):
    """Only the default principal exists here."""

    type: Literal["service_account"]


Multiagent = Annotated[
    None, refused("agents of several agents are not offered by this sidecar; leave the field out")
]


def _no_skills(value: Any) -> Any:
    if value:
        raise ValueError("are not offered: this sidecar has none to load; leave the field out")
    return value


Skills = Annotated[Items[Any], BeforeValidator(_no_skills)]
"""Empty, as it comes back from here."""


class AgentCreate(Body):
    """`POST /v1/agents`."""

    name: Name
    model: ModelParam
    system: System | None = None
    description: Description | None = None
    tools: Tools | None = None
    mcp_servers: McpServers | None = None
    skills: Skills | None = None
    metadata: Metadata | None = None
    multiagent: Multiagent = None
    execution_identity: Annotated[ExecutionIdentity | None, LeftOut] = None


class AgentUpdate(Body):
    """`POST /v1/agents/{id}`: omitted keeps, null or empty clears where clearing is possible."""

    version: Version | None = None
    name: Name | None = None
    model: ModelParam | None = None
    system: System | None = None
    description: Description | None = None
    tools: Tools | None = None
    mcp_servers: McpServers | None = None
    skills: Skills | None = None
    metadata: MetadataPatch | None = None
    multiagent: Multiagent = None
    execution_identity: Annotated[ExecutionIdentity | None, LeftOut] = None

    @model_validator(mode="before")
    @classmethod
    def _not_clearable(cls, data: Any) -> Any:
        for field in ("name", "model"):
            if isinstance(data, dict) and field in data and data[field] is None:
                raise ValueError(f"{field}: cannot be cleared; omit it to keep the current value")
        return data
