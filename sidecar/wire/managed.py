"""Request bodies of the Anthropic Managed Agents API: agents, environments, sessions, tools.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits. Unknown fields
are ignored, so that a newer client can talk to an older sidecar; known fields are checked strictly.
Whether a field was sent at all (omitted keeps, null clears) is read from `model_fields_set`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from sidecar.wire.model_bounds import MAX_TYPED_NAME_CHARS
from sidecar.wire.problems import shown

MAX_TOOLS = 256
MAX_MCP_SERVERS = 20
MAX_SYSTEM_CHARS = 100_000
MAX_METADATA_PAIRS = 16

FIELD_CODES = {"metadata": "invalid_metadata"}
"""Field -> Anthropic's `error_code` for whatever is wrong with it."""
MODEL_REQUIRED = "agent_model_required"
"""An `error_code` that a validator gives as the type of its error."""


_T = TypeVar("_T")
Items = Annotated[list[_T], Field(fail_fast=True)]
"""A list in a request. It ends at its first wrong item: a million wrong ones would each become an error,
and three errors are shown. Its length, where it has a bound, is checked before the items are."""


class Body(BaseModel):
    """Base of all request bodies: strict types, unknown fields ignored.

    Validators are built at the first use: building them all would be a tenth of the start.
    """

    model_config = ConfigDict(extra="ignore", strict=True, defer_build=True)


def refused(reason: str) -> BeforeValidator:
    """Return the validator of a field that only null may be given to."""

    def check(value: Any) -> None:
        if value is not None:
            raise ValueError(reason)

    return BeforeValidator(check)


def _left_out(value: Any) -> Any:
    return None if value == {} else value


LeftOut = BeforeValidator(_left_out)
"""`{}` means that the field was left out, as clients send it that fill in every field."""


def _or(default: Any) -> BeforeValidator:
    """Return the validator that puts the default in the place of null."""
    return BeforeValidator(lambda value: default if value is None else value)


def check_token(value: str) -> str:
    """Return the token. A header carries it: raises ValueError unless it is one line of printable ASCII."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("must be printable ASCII on one line, without spaces around it")
    return value


def _few(most: int) -> BeforeValidator:
    """Return the validator that counts the pairs of an object before looking at any."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise ValueError(f"at most {MAX_METADATA_PAIRS} pairs")
        return value

    return BeforeValidator(check)


def _check_metadata(value: dict[str, str | None]) -> dict[str, str | None]:
    for key, item in value.items():
        if not 1 <= len(key) <= 64:
            raise ValueError(f"key {key[:70]!r} must have 1 to 64 characters")
        if item is not None and len(item) > 512:
            raise ValueError(f"value of {key!r} must have at most 512 characters")
    return value


def _check_whole(value: dict[str, str | None]) -> dict[str, str | None]:
    for key, item in value.items():
        if item is None:
            raise ValueError(f"value of {key!r} must be a string")
    return value


def _pairs_schema(value: dict[str, Any]) -> WithJsonSchema:
    """Return what the checks above say, for the API's description."""
    return WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {**value, "maxLength": 512},
            "propertyNames": {"minLength": 1, "maxLength": 64},
        }
    )


_Pairs = Annotated[dict[str, str | None], AfterValidator(_check_metadata)]
MetadataPatch = Annotated[
    _Pairs, _few(2 * MAX_METADATA_PAIRS), _pairs_schema({"type": ["string", "null"]})
]
"""Metadata of an update: a null value deletes the key. It can delete as many pairs as there may be, and set
as many; how many there are then is checked on the result."""
Metadata = Annotated[
    _Pairs,
    AfterValidator(_check_whole),
    _few(MAX_METADATA_PAIRS),
    _pairs_schema({"type": "string"}),
]

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
System = Annotated[str, StringConstraints(max_length=MAX_SYSTEM_CHARS)]
Description = Annotated[str, StringConstraints(max_length=2048)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
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


class ToolOptions(Body):
    """Base of what a toolset says about its tools. An unknown field is refused: most options restrict the
    agent, and a misspelt one would restrict nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class PermissionPolicy(ToolOptions):
    """`always_allow`, `always_ask`, or `auto` (which the sidecar treats as `always_ask`)."""

    type: Literal["always_allow", "always_ask", "auto"]


class ToolDefaults(ToolOptions):
    """`default_config` of a toolset."""

    enabled: bool | None = None
    permission_policy: Annotated[PermissionPolicy | None, LeftOut] = None


class McpToolConfig(ToolDefaults):
    """One entry of an MCP toolset's `configs`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]


def _hostname(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError(
            f"{value[:80]!r} must be a plain hostname such as 'docs.example.com', without scheme or path"
        )
    return value


def _hostname_and_path(value: str) -> str:
    _hostname(value.partition("/")[0])
    if not value.isprintable() or " " in value:
        raise ValueError(f"{value[:80]!r} must be a hostname, with or without a path behind it")
    return value


_DOMAIN = re.compile(r"(?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*")
_Few = Field(min_length=1, max_length=64)
Domains = Annotated[Items[Annotated[str, AfterValidator(_hostname)]], _Few]
DomainsAndPaths = Annotated[Items[Annotated[str, AfterValidator(_hostname_and_path)]], _Few]


class BuiltInConfig(ToolDefaults):
    """What the `configs` of all built-in tools have in common."""

    type: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.type not in {None, getattr(self, "name", None)}:
            raise ValueError("type: must be the tool's name, or left out")
        if getattr(self, "allowed_domains", None) and getattr(self, "blocked_domains", None):
            raise ValueError(
                "allowed_domains and blocked_domains cannot be combined; send one of them"
            )
        return self


class FileToolConfig(BuiltInConfig):
    """A tool that works on the session's directory; it has no options of its own."""

    name: Literal["bash", "read", "write", "edit", "glob", "grep"]


class WebFetchConfig(BuiltInConfig):
    """`web_fetch`. Its domains hold for every redirect, too."""

    name: Literal["web_fetch"]
    allowed_domains: Domains | None = None
    blocked_domains: Domains | None = None
    max_content_tokens: Annotated[
        None,
        refused("is not offered by this sidecar, which counts no tokens of pages; leave it out"),
    ] = None
    url_sources: Annotated[
        None,
        refused("is not offered by this sidecar; limit what is fetched with allowed_domains"),
    ] = None


_NO_PLACE = refused("is not offered: the gateway's search takes a country only; leave it out")


class UserLocation(ToolOptions):
    """Where results are to be from. The gateway's search takes a country only."""

    type: Literal["approximate"]
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    city: Annotated[None, _NO_PLACE] = None
    region: Annotated[None, _NO_PLACE] = None
    timezone: Annotated[None, _NO_PLACE] = None


class WebSearchConfig(BuiltInConfig):
    """`web_search`, which the gateway does."""

    name: Literal["web_search"]
    allowed_domains: DomainsAndPaths | None = None
    blocked_domains: DomainsAndPaths | None = None
    user_location: Annotated[UserLocation | None, LeftOut] = None


ToolConfig = Annotated[
    FileToolConfig | WebFetchConfig | WebSearchConfig, Field(discriminator="name")
]


class AgentToolset(ToolOptions):
    """The built-in tools."""

    type: Literal["agent_toolset_20260401"]
    default_config: ToolDefaults | None = None
    configs: Items[ToolConfig] | None = None


class McpToolset(ToolOptions):
    """The tools of one MCP server."""

    type: Literal["mcp_toolset"]
    mcp_server_name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    default_config: ToolDefaults | None = None
    configs: Items[McpToolConfig] | None = None


class InputSchema(BaseModel):
    """JSON Schema of a custom tool's input; an object at the top, everything else passes."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: Literal["object"]
    properties: dict[str, Any] | None = None
    required: Items[str] | None = None


class CustomTool(Body):
    """A tool that the client executes."""

    type: Literal["custom"]
    name: ToolName
    description: Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
    input_schema: InputSchema


Tool = Annotated[AgentToolset | McpToolset | CustomTool, Field(discriminator="type")]


class McpServer(Body):
    """A remote MCP server over streamable HTTP or SSE."""

    type: Annotated[Literal["url"], _or("url")] = "url"
    """The only kind there is; clients leave it out."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=2048)]


class ExecutionIdentity(Body):
    """Only the default principal exists here."""

    type: Literal["service_account"]


Multiagent = Annotated[
    None, refused("agents of several agents are not offered by this sidecar; leave the field out")
]
Tools = Annotated[Items[Tool], Field(max_length=MAX_TOOLS)]
McpServers = Annotated[Items[McpServer], Field(max_length=MAX_MCP_SERVERS)]


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


def _package(value: str) -> str:
    # It becomes one argument of the package manager, which must not take it for an option or a path.
    if not _PACKAGE.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is not a package's name with, maybe, its version")
    return value


def _no_manager(name: str) -> AfterValidator:
    def check(value: list[str]) -> list[str]:
        if value:
            raise ValueError(
                f"{name} packages are not offered: agents cannot install into the system, and only pip and "
                "npm install into a session's directory; put them into the image that the sidecar runs in"
            )
        return value

    return AfterValidator(check)


_PACKAGE = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._/\[\],@=<>~!^*+ -]{0,254}")
InstalledPackages = Annotated[
    Items[Annotated[str, AfterValidator(_package)]],
    Field(max_length=100),
    BeforeValidator(lambda value: [] if value is None else value),
]
_Names = Annotated[Items[str], BeforeValidator(lambda value: [] if value is None else value)]


class Packages(Body):
    """Packages by manager, installed into each session's directory before its first turn."""

    type: Literal["packages"] = "packages"
    apt: Annotated[_Names, _no_manager("apt")] = []
    cargo: Annotated[_Names, _no_manager("cargo")] = []
    gem: Annotated[_Names, _no_manager("gem")] = []
    go: Annotated[_Names, _no_manager("go")] = []
    npm: InstalledPackages = []
    pip: InstalledPackages = []


def _unlimited(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "limited":
        raise ValueError(
            "limited is not offered: this sidecar cannot limit which hosts a session's commands reach (the "
            'platform around it can, see docs/deploy.md); send {"type": "unrestricted"}'
        )
    return {"type": "unrestricted"} if value is None or value == {} else value


class UnrestrictedNetwork(Body):
    """No network policy."""

    type: Literal["unrestricted"]


class CloudConfig(Body):
    """Our own sandbox: the container the sidecar runs in."""

    type: Literal["cloud"]
    networking: Annotated[UnrestrictedNetwork, BeforeValidator(_unlimited)] = UnrestrictedNetwork(
        type="unrestricted"
    )
    packages: Annotated[Packages, _or({})] = Packages()


class SelfHostedConfig(Body):
    """Built-in tools run at the client. Not offered; environments of earlier versions may be of this kind."""

    type: Literal["self_hosted"]


def _cloud_only(value: Any) -> Any:
    if isinstance(value, dict) and value and value.get("type") != "cloud":
        if "type" not in value:
            raise ValueError("must be an object with a 'type'")
        if value["type"] == "self_hosted":
            raise ValueError(
                "type 'self_hosted' is not offered by this sidecar, which runs the built-in tools itself; it "
                "takes 'cloud'"
            )
        raise ValueError(
            f"type {shown(value['type'])} is not offered by this sidecar; it takes 'cloud'"
        )
    return _left_out(value)


EnvironmentConfig = Annotated[CloudConfig | None, BeforeValidator(_cloud_only)]
EnvironmentConfigChange = Annotated[
    Annotated[CloudConfig | SelfHostedConfig, Field(discriminator="type")] | None, LeftOut
]


class EnvironmentCreate(Body):
    """`POST /v1/environments`."""

    name: Name
    config: EnvironmentConfig = None
    description: Description | None = None
    metadata: Metadata | None = None
    scope: Literal["organization", "account"] | None = None


class EnvironmentUpdate(Body):
    """`POST /v1/environments/{id}`."""

    name: Name | None = None
    config: EnvironmentConfigChange = None
    description: Description | None = None
    metadata: MetadataPatch | None = None
    scope: Literal["organization", "account"] | None = None
