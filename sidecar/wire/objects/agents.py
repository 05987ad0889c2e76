"""Agents, environments, vaults and credentials as they are answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from sidecar.wire.objects.common import Time

PolicyType = Literal["always_allow", "always_ask", "auto"]


class Policy(TypedDict):
    """Whether a call runs unasked."""

    type: PolicyType


class ToolDefaultsObject(TypedDict):
    """What holds for the tools of a toolset without a config of their own."""

    enabled: bool
    permission_policy: Policy


@with_config(ConfigDict(extra="allow"))
class ToolConfigObject(ToolDefaultsObject):
    """What holds for one tool; single tools have further options."""

    name: str
    type: NotRequired[str]


class AgentToolsetObject(TypedDict):
    """The built-in tools."""

    type: Literal["agent_toolset_20260401"]
    default_config: ToolDefaultsObject
    configs: list[ToolConfigObject]


class McpToolsetObject(TypedDict):
    """The tools of one MCP server."""

    type: Literal["mcp_toolset"]
    mcp_server_name: str
    default_config: ToolDefaultsObject
    configs: list[ToolConfigObject]


class CustomToolObject(TypedDict):
    """A tool that the client executes; `input_schema` is JSON Schema."""

    type: Literal["custom"]
    name: str
    description: str
    input_schema: dict[str, Any]


ToolObject = Annotated[
    AgentToolsetObject | McpToolsetObject | CustomToolObject, Field(discriminator="type")
]


class EffortObject(TypedDict):
    """How much the model thinks."""

    type: str


class ModelConfigObject(TypedDict):
    """The model, under the id that the gateway lists."""

    id: str
    effort: NotRequired[EffortObject]
    speed: NotRequired[str]
    inference_geo: NotRequired[str]


class McpServerObject(TypedDict):
    """A remote MCP server."""

    type: Literal["url"]
    name: str
    url: str


class SkillObject(TypedDict):
    """A skill of the agent."""

    type: Literal["anthropic", "custom"]
    skill_id: str
    version: str


class ExecutionIdentityObject(TypedDict):
    """The principal under which the agent runs; there is one."""

    type: Literal["service_account"]


class ThreadAgentObject(TypedDict):
    """The agent of a thread."""

    type: Literal["agent"]
    id: str
    version: int
    name: str
    model: ModelConfigObject
    system: str | None
    description: str | None
    tools: list[ToolObject]
    mcp_servers: list[McpServerObject]
    skills: list[SkillObject]
    execution_identity: NotRequired[ExecutionIdentityObject]


class SessionAgentObject(ThreadAgentObject):
    """The agent as a session keeps it."""

    multiagent: None


class AgentObject(SessionAgentObject):
    """One version of an agent."""

    metadata: dict[str, str]
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class PackagesObject(TypedDict):
    """Packages by manager."""

    type: NotRequired[Literal["packages"]]
    apt: list[str]
    cargo: list[str]
    gem: list[str]
    go: list[str]
    npm: list[str]
    pip: list[str]


class UnrestrictedNetworkObject(TypedDict):
    """No network policy."""

    type: Literal["unrestricted"]


class LimitedNetworkObject(TypedDict):
    """An allow-list."""

    type: Literal["limited"]
    allowed_hosts: list[str]
    allow_mcp_servers: bool
    allow_package_managers: bool


class CloudConfigObject(TypedDict):
    """The container that the sidecar runs in."""

    type: Literal["cloud"]
    networking: Annotated[
        UnrestrictedNetworkObject | LimitedNetworkObject, Field(discriminator="type")
    ]
    packages: PackagesObject


class SelfHostedConfigObject(TypedDict):
    """Built-in tools would run at the client."""

    type: Literal["self_hosted"]


class EnvironmentObject(TypedDict):
    """An environment."""

    id: str
    type: Literal["environment"]
    name: str
    description: str | None
    config: Annotated[CloudConfigObject | SelfHostedConfigObject, Field(discriminator="type")]
    metadata: dict[str, str]
    scope: Literal["organization", "account"] | None
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class VaultObject(TypedDict):
    """A vault."""

    id: str
    type: Literal["vault"]
    display_name: str
    metadata: dict[str, str]
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class StaticBearerObject(TypedDict):
    """A token for one MCP server, without the token."""

    type: Literal["static_bearer"]
    mcp_server_url: str


class InjectionLocationObject(TypedDict):
    """Where the value may be put."""

    header: bool
    body: bool


class EnvironmentVariableObject(TypedDict):
    """A variable for the sessions' shells, without its value."""

    type: Literal["environment_variable"]
    secret_name: str
    networking: UnrestrictedNetworkObject
    injection_location: InjectionLocationObject


class CredentialObject(TypedDict):
    """A credential. Its secret is never answered."""

    id: str
    type: Literal["vault_credential"]
    vault_id: str
    auth: Annotated[StaticBearerObject | EnvironmentVariableObject, Field(discriminator="type")]
    display_name: str | None
    metadata: dict[str, str]
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class Deleted(TypedDict):
    """That something was deleted."""

    id: str
    type: Literal[
        "environment_deleted",
        "vault_deleted",
        "vault_credential_deleted",
        "session_deleted",
        "session_resource_deleted",
    ]
