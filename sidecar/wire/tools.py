"""The tools of an agent, as requests name them: built-in ones, those of MCP servers, and the client's own.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from sidecar.wire.fields import Body, Items, LeftOut, or_default, refused
from sidecar.wire.urls import check_no_secret

MAX_TOOLS = 256
MAX_MCP_SERVERS = 20

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


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


def _check_server_url(url: str) -> str:
    place = "a token goes into a vault, as a credential of type static_bearer for this URL"
    return check_no_secret(url, place=place)


class McpServer(Body):
    """A remote MCP server over streamable HTTP or SSE."""

    type: Annotated[Literal["url"], or_default("url")] = "url"
    """The only kind there is; clients leave it out."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    url: Annotated[
        str,
        StringConstraints(pattern=r"^https?://\S+$", max_length=2048),
        AfterValidator(_check_server_url),
    ]


Tools = Annotated[Items[Tool], Field(max_length=MAX_TOOLS)]
McpServers = Annotated[Items[McpServer], Field(max_length=MAX_MCP_SERVERS)]
