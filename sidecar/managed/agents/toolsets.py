"""An agent's `tools` and `mcp_servers` as a client sends them: checked, with every default written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.errors import InvalidRequestError
from sidecar.managed.turns.tool_plan import BUILT_IN, WEB_SEARCH
from sidecar.masking import masked_urls
from sidecar.wire.tools import AgentToolset, CustomTool, Tool, ToolDefaults


def expand(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """Return the tools as the API answers them, every default written out.

    Raises InvalidRequestError when a tool is configured twice.
    """
    return [_expand_one(tool) for tool in tools or ()]


def check_fit(tools: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidRequestError when expanded tools and servers do not fit together."""
    names = [server["name"] for server in servers]
    _refuse_repeats(names, "mcp_servers", "server name")
    referenced = [t["mcp_server_name"] for t in tools if t["type"] == "mcp_toolset"]
    _refuse_repeats(referenced, "tools", "mcp_toolset for server")
    _refuse_repeats([t["name"] for t in tools if t["type"] == "custom"], "tools", "custom tool")
    _refuse_repeats([t["type"] for t in tools if t["type"] == BUILT_IN], "tools", "toolset")
    for name in referenced:
        if name not in names:
            raise InvalidRequestError(
                f"tools: mcp_toolset names the server {name!r}, which mcp_servers does not have",
                field="tools",
            )
    for name in names:
        if name not in referenced:
            raise InvalidRequestError(
                f"mcp_servers: {name!r} is used by no mcp_toolset in tools; add one or drop it",
                field="mcp_servers",
            )


def offered(tools: Sequence[Mapping[str, Any]], *, has_search: bool) -> list[dict[str, Any]]:
    """Return expanded tools as this sidecar offers them: without a search, `web_search` is not enabled."""
    return [
        {**tool, "configs": _search_off(tool)}
        if tool["type"] == BUILT_IN and not has_search
        else dict(tool)
        for tool in tools
    ]


def _search_off(toolset: Mapping[str, Any]) -> list[dict[str, Any]]:
    configs, default = toolset["configs"], toolset["default_config"]
    given = next((c for c in configs if c["name"] == WEB_SEARCH), None)
    if given is None and not default["enabled"]:
        return list(configs)
    policy = (given or default)["permission_policy"]
    off = {"name": WEB_SEARCH, "type": WEB_SEARCH, "permission_policy": policy, **(given or {})}
    return [*(c for c in configs if c is not given), {**off, "enabled": False}]


def _expand_one(tool: Tool) -> dict[str, Any]:
    if isinstance(tool, CustomTool):
        return tool.model_dump(exclude_none=True)
    built_in = isinstance(tool, AgentToolset)
    fallback = "always_allow" if built_in else "always_ask"
    default = _config(tool.default_config, enabled=True, policy=fallback)
    _refuse_repeats([c.name for c in tool.configs or ()], "tools", "config for tool")
    configs = []
    for config in tool.configs or ():
        shown = _config(
            config, enabled=default["enabled"], policy=default["permission_policy"]["type"]
        )
        options = config.model_dump(exclude_none=True)
        typed = {"type": config.name} if built_in else {}
        configs.append({**options, **typed, **shown})
    server = {} if built_in else {"mcp_server_name": getattr(tool, "mcp_server_name", "")}
    return {"type": tool.type, **server, "default_config": default, "configs": configs}


def _config(given: ToolDefaults | None, *, enabled: bool, policy: str) -> dict[str, Any]:
    if given is not None and given.enabled is not None:
        enabled = given.enabled
    if given is not None and given.permission_policy is not None:
        policy = given.permission_policy.type
    return {"enabled": enabled, "permission_policy": {"type": policy}}


def _refuse_repeats(names: Sequence[str], field: str, kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequestError(
                f"{field}: {kind} {name!r} appears more than once", field=field
            )


def shown_servers(servers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return an agent's `mcp_servers` as they are answered: URLs of older versions may hold secrets."""
    return [{**server, "url": masked_urls(server["url"])} for server in servers]
