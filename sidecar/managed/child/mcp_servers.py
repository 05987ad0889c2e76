"""The MCP servers of a session, as they are added to opencode when it loads the session's directory.

Every session has a directory of its own, so the same server name may stand for another URL, with
another token, in each session. Tokens travel in the request that adds the server; they are in no file.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sidecar.managed.turns.failures import Failure, TurnFailedError
from sidecar.managed.turns.state import SessionRecord
from sidecar.managed.turns.tool_plan import CUSTOM_SERVER, WEB_SERVER, ToolPlan
from sidecar.opencode.custom_tools import CustomTools

BearersFor = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Returns token by exact server URL for a session's vaults."""

_UNLIMITED_MILLISECONDS = 2_147_000_000
"""The longest timer that opencode's runtime has (24.8 days): people take their time to answer."""
_MCP_MILLISECONDS = 600_000
_AUTHENTICATION = re.compile(r"\b(401|403)\b|unauthori[sz]ed|forbidden|needs_auth|auth", re.I)


class McpServers:
    """Makes the entries for `POST /mcp` and judges what opencode says of them."""

    def __init__(
        self,
        *,
        custom_tools: CustomTools,
        tool_server_url: Callable[[str, str], str],
        bearers_for: BearersFor,
    ) -> None:
        self._custom_tools = custom_tools
        self._tool_server_url = tool_server_url
        self._bearers_for = bearers_for

    async def tokens_of(self, record: SessionRecord) -> list[str]:
        """Return the tokens that the session's servers are sent."""
        servers = record.agent["mcp_servers"]
        bearers = await self._bearers_for(record.body["vault_ids"]) if servers else {}
        return [bearers[server["url"]] for server in servers if server["url"] in bearers]

    async def entries(self, record: SessionRecord) -> dict[str, dict[str, Any]]:
        """Return opencode's MCP config by server key."""
        plan = ToolPlan(record.agent["tools"], record.agent["mcp_servers"])
        entries: dict[str, dict[str, Any]] = {}
        servers = record.agent["mcp_servers"]
        bearers = await self._bearers_for(record.body["vault_ids"]) if servers else {}
        for server in servers:
            token = bearers.get(server["url"])
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            key = plan.server_keys[server["name"]]
            entries[key] = _remote(server["url"], headers, _MCP_MILLISECONDS)
        headers = {"Authorization": f"Bearer {self._custom_tools.token(record.id)}"}
        if plan.custom:
            url = self._tool_server_url(CUSTOM_SERVER, record.id)
            entries[CUSTOM_SERVER] = _remote(url, headers, _UNLIMITED_MILLISECONDS)
        if plan.web:
            url = self._tool_server_url(WEB_SERVER, record.id)
            entries[WEB_SERVER] = _remote(url, headers, _MCP_MILLISECONDS)
        return entries

    def check(self, record: SessionRecord, key: str, statuses: Mapping[str, Any]) -> None:
        """Raise TurnFailedError unless the server is connected."""
        status = statuses.get(key) or {}
        if status.get("status") == "connected":
            return
        plan = ToolPlan(record.agent["tools"], record.agent["mcp_servers"])
        names = {key: name for name, key in plan.server_keys.items()}
        reason = str(status.get("error") or status.get("status") or "no answer")[:300]
        is_authentication = _AUTHENTICATION.search(f"{status.get('status')} {reason}") is not None
        name = names.get(key, key)
        raise TurnFailedError(
            Failure(
                "mcp_authentication_failed_error"
                if is_authentication
                else "mcp_connection_failed_error",
                f"the MCP server {name!r} cannot be used: {reason}",
                extra=(("mcp_server_name", name),),
            )
        )


def _remote(url: str, headers: Mapping[str, str], milliseconds: int) -> dict[str, Any]:
    return {
        "type": "remote",
        "url": url,
        "enabled": True,
        "headers": dict(headers),
        "oauth": False,
        "timeout": milliseconds,
    }
