"""Tools: what the API shows, what the child is allowed, and how calls are named on either side.

Clients know eight built-in tools; opencode has its own names and inputs for six of them. MCP tools are
called `<server>_<tool>` by opencode; a client's custom tools, and the two that reach the web, come to it as
tools of servers of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.wire.external_directory import OPEN, PERMISSION, Rule

Policy = Literal["allow", "ask", "deny"]

BUILT_IN = "agent_toolset_20260401"
"""Type of the toolset with the API's built-in tools."""

WEB_FETCH = "web_fetch"
WEB_SEARCH = "web_search"
WEB_SERVER = "web"
"""Name, inside opencode, of our MCP server with `fetch` and `search`: the model sees `web_fetch` and
`web_search`. opencode's own tools of that kind know no domain lists and leave past the gateway."""

CHILD_TOOLS: Mapping[str, str] = {
    "bash": "bash",
    "read": "read",
    "write": "write",
    "edit": "edit",
    "glob": "glob",
    "grep": "grep",
    WEB_FETCH: f"{WEB_SERVER}_fetch",
    WEB_SEARCH: f"{WEB_SERVER}_search",
}
"""The API's built-in tools and what opencode calls them."""

_API_TOOLS = {child: name for name, child in CHILD_TOOLS.items()}
_API_TOOLS["apply_patch"] = "edit"
_API_TOOLS["webfetch"] = WEB_FETCH  # in histories of earlier versions

_CHILD_PERMISSION = {"write": "edit", "edit": "edit"}
"""opencode guards writing and editing by one permission, so the stricter policy holds for both."""

CUSTOM_SERVER = "custom"
"""Name, inside opencode, of our MCP server that offers a session's custom tools."""

_STRICTNESS: Mapping[Policy, int] = {"allow": 0, "ask": 1, "deny": 2}
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

_FIELD_NAMES: Mapping[str, Mapping[str, str]] = {
    "bash": {"timeout": "timeout_ms"},
    "read": {"filePath": "file_path"},
    "write": {"filePath": "file_path"},
    "edit": {
        "filePath": "file_path",
        "oldString": "old_string",
        "newString": "new_string",
        "replaceAll": "replace_all",
    },
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the API shows it. `server` is set for MCP tools only."""

    kind: Literal["builtin", "mcp", "custom"]
    name: str
    input: dict[str, Any]
    policy: Policy
    server: str | None = None


def sanitise(name: str) -> str:
    """Return the name as opencode writes it inside tool names."""
    return _UNSAFE.sub("_", name)


class ToolPlan:
    """What one session may do, made from the effective agent's `tools` and `mcp_servers`."""

    def __init__(
        self, tools: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, Any]]
    ) -> None:
        self.server_keys = _server_keys([server["name"] for server in servers])
        self.custom = [dict(tool) for tool in tools if tool["type"] == "custom"]
        self._toolset = next((t for t in tools if t["type"] == BUILT_IN), None)
        self._mcp = {t["mcp_server_name"]: t for t in tools if t["type"] == "mcp_toolset"}

    @property
    def web(self) -> dict[str, Mapping[str, Any]]:
        """`web_fetch` and `web_search`, those that are enabled, with their options, such as domains."""
        if self._toolset is None:
            return {}
        options = {config["name"]: config for config in self._toolset["configs"]}
        enabled = (
            n for n in (WEB_FETCH, WEB_SEARCH) if self._effective(self._toolset, n) != "deny"
        )
        return {name: options.get(name, {}) for name in enabled}

    def rules(self, external: Sequence[Rule] = OPEN) -> list[dict[str, str]]:
        """Return opencode's permission ruleset (the last match wins): nothing but what is granted.

        `external` says which paths outside of the session's directory its tools may name.
        """
        rules = [_rule("*", "deny")]
        if self._toolset is not None:
            strictest: dict[str, Policy] = {}
            for name, child in CHILD_TOOLS.items():
                permission = _CHILD_PERMISSION.get(child, child)
                policy = self._effective(self._toolset, name)
                held = strictest.get(permission, "allow")
                strictest[permission] = max(held, policy, key=_STRICTNESS.__getitem__)
            rules += [_rule(permission, policy) for permission, policy in strictest.items()]
            # Allowed or denied: to ask about paths would hang a session that no person watches.
            rules += [
                {"permission": PERMISSION, "pattern": pattern, "action": action}
                for pattern, action in external
            ]
        for server, toolset in self._mcp.items():
            key = self.server_keys[server]
            rules.append(_rule(f"{key}_*", _policy(toolset["default_config"])))
            rules += [
                _rule(f"{key}_{sanitise(config['name'])}", _policy(config))
                for config in toolset["configs"]
            ]
        if self.custom:
            rules.append(_rule(f"{CUSTOM_SERVER}_*", "allow"))
        rules += [_rule("doom_loop", "allow"), _rule("question", "deny")]
        return rules

    def describe(self, child_tool: str, child_input: Mapping[str, Any]) -> ToolCall:
        """Return the call as the API names it."""
        if self.custom and child_tool.startswith(f"{CUSTOM_SERVER}_"):
            return ToolCall(
                "custom", child_tool.removeprefix(f"{CUSTOM_SERVER}_"), dict(child_input), "allow"
            )
        for server, key in self.server_keys.items():
            if child_tool.startswith(f"{key}_") and server in self._mcp:
                tool = child_tool.removeprefix(f"{key}_")
                policy = self._effective(self._mcp[server], tool)
                return ToolCall("mcp", tool, dict(child_input), policy, server)
        name = _API_TOOLS.get(child_tool, child_tool)
        policy = self._effective(self._toolset, name) if self._toolset else "deny"
        return ToolCall("builtin", name, _api_input(name, child_input), policy)

    def _effective(self, toolset: Mapping[str, Any], name: str) -> Policy:
        for config in toolset["configs"]:
            if name in {config["name"], sanitise(config["name"])}:
                return _policy(config)
        return _policy(toolset["default_config"])


def _server_keys(names: Sequence[str]) -> dict[str, str]:
    """Give each server a key that is not a prefix of another, so that tool names can be taken apart."""
    keys: dict[str, str] = {}
    for name in names:
        key, number = sanitise(name), 2
        while any(_overlap(key, other) for other in [*keys.values(), CUSTOM_SERVER, WEB_SERVER]):
            # In front: behind, `git_hub` would always begin with `git_`.
            key, number = f"{number}-{sanitise(name)}", number + 1
        keys[name] = key
    return keys


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}_") or other.startswith(f"{one}_")


def _policy(config: Mapping[str, Any]) -> Policy:
    if not config["enabled"]:
        return "deny"
    return "allow" if config["permission_policy"]["type"] == "always_allow" else "ask"


def _rule(permission: str, action: Policy) -> dict[str, str]:
    return {"permission": permission, "pattern": "*", "action": action}


def _api_input(name: str, child_input: Mapping[str, Any]) -> dict[str, Any]:
    names = _FIELD_NAMES.get(name, {})
    shown = {names.get(key, key): value for key, value in child_input.items()}
    if name == "read" and ("offset" in shown or "limit" in shown):
        offset, limit = shown.get("offset") or 1, shown.get("limit") or 0
        # The model may have sent anything; opencode refuses it, and we show what was sent.
        if isinstance(offset, int) and isinstance(limit, int):
            start = max(1, offset)
            shown = {k: v for k, v in shown.items() if k not in {"offset", "limit"}}
            shown["view_range"] = [start, start + limit - 1 if limit else -1]
    if name == "bash":
        shown.pop("description", None)
    return shown
