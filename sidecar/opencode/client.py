"""opencode's HTTP API: a method per route that we use.

Wire format: `GET /doc` of opencode 1.18.33. Routing quirk: `/session/{id}/...` uses the directory that
the session was created in; every other route needs `?directory=`, and a directory it has not seen yet
costs an instance.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import aiohttp

from sidecar.errors import ChildError
from sidecar.naming import ModelRef, child_id
from sidecar.opencode.transport import UNBOUNDED, Transport, as_object, as_objects, field_of

PermissionRule = Mapping[str, str]
"""`{"permission": "bash", "pattern": "*", "action": "allow" | "ask" | "deny"}`; the last match wins."""


class ChildClient:
    """Talks to one boot of the child.

    Every method raises ChildUnavailableError when the child cannot be reached or does not answer in
    time, ChildError (with `upstream_status`) when it answers an error.
    """

    def __init__(
        self,
        *,
        base_url: str,
        password: str,
        session: aiohttp.ClientSession,
        request_timeout_seconds: float,
    ) -> None:
        self._transport = Transport(
            base_url=base_url,
            password=password,
            session=session,
            request_timeout_seconds=request_timeout_seconds,
        )

    @property
    def base_url(self) -> str:
        """Where this boot listens."""
        return self._transport.base_url

    async def health(self, *, timeout_seconds: float) -> str:
        """Return the child's version. Needs no instance."""
        answer = await self._transport.call(
            "GET", "/global/health", bound=aiohttp.ClientTimeout(total=timeout_seconds)
        )
        if not (isinstance(answer, dict) and answer.get("healthy") is True):
            raise ChildError("opencode does not call itself healthy")
        return str(answer.get("version", ""))

    async def create_session(
        self,
        directory: Path,
        *,
        title: str,
        permission: Sequence[PermissionRule] = (),
    ) -> str:
        """Create a session that lives in `directory`; return its id (`ses_...`)."""
        body: dict[str, Any] = {"title": title}
        if permission:
            body["permission"] = [dict(rule) for rule in permission]
        answer = await self._transport.call("POST", "/session", directory=directory, body=body)
        return str(field_of(answer, "id"))

    async def get_session(self, session_id: str) -> dict[str, Any]:
        """Return the session as opencode has it."""
        return as_object(await self._transport.call("GET", _session(session_id)))

    async def update_session_permission(
        self, session_id: str, permission: Sequence[PermissionRule]
    ) -> None:
        """Append rules to the session's permissions (the last match wins)."""
        await self._transport.call(
            "PATCH", _session(session_id), body={"permission": [dict(r) for r in permission]}
        )

    async def delete_session(self, session_id: str) -> None:
        """Delete the session. It does not stop a running turn: abort first."""
        await self._transport.call("DELETE", _session(session_id))

    async def prompt_async(
        self,
        session_id: str,
        *,
        message_id: str,
        model: ModelRef,
        parts: Sequence[Mapping[str, Any]],
        agent: str,
        system: str | None = None,
        variant: str | None = None,
    ) -> None:
        """Queue a user message; everything else arrives as events.

        `message_id` (`msg_...`) becomes the `parentID` of all assistant messages of this turn. An
        unknown model or agent is accepted here and refused by an event.
        """
        body: dict[str, Any] = {
            "messageID": message_id,
            "model": {"providerID": model.provider, "modelID": child_id(model.model_id)},
            "agent": agent,
            "parts": [dict(part) for part in parts],
        }
        if system:
            body["system"] = system
        if variant is not None:
            body["variant"] = variant
        await self._transport.call("POST", _session(session_id, "prompt_async"), body=body)

    async def run_shell(self, session_id: str, command: str, *, agent: str, model: ModelRef) -> str:
        """Run a command in the session's directory as its agent's shell would; return what it wrote.

        No model is asked, and no permission. Waits without a bound of its own: abort ends the command.
        """
        body = {
            "agent": agent,
            "model": {"providerID": model.provider, "modelID": child_id(model.model_id)},
            "command": command,
        }
        answer = await self._transport.call(
            "POST", _session(session_id, "shell"), body=body, bound=UNBOUNDED
        )
        states = [part.get("state") or {} for part in as_objects(field_of(answer, "parts"))]
        return "".join(str(state.get("output") or state.get("error") or "") for state in states)

    async def abort(self, session_id: str) -> None:
        """Stop the session's turn; no turn is fine too."""
        await self._transport.call("POST", _session(session_id, "abort"))

    async def messages(self, session_id: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return `{info, parts}` per message, oldest first; with `limit` only the newest."""
        query = {} if limit is None else {"limit": str(limit)}
        return as_objects(
            await self._transport.call("GET", _session(session_id, "message"), query=query)
        )

    async def session_status(self, directory: Path) -> dict[str, dict[str, Any]]:
        """Return the status of each session of `directory` that is not idle: busy or retry."""
        return as_object(await self._transport.call("GET", "/session/status", directory=directory))

    async def replay(self, directory: Path, events: Sequence[Mapping[str, Any]]) -> None:
        """Apply sync events of one session, in order and without a gap; known ones change nothing."""
        body = {"directory": str(directory), "events": [dict(event) for event in events]}
        await self._transport.call("POST", "/sync/replay", directory=directory, body=body)

    async def reply_permission(
        self,
        permission_id: str,
        directory: Path,
        *,
        reply: Literal["once", "always", "reject"],
        message: str | None = None,
    ) -> None:
        """Answer a permission request.

        A reject with a message lets the model go on, one without ends the turn.
        """
        body = {"reply": reply} | ({} if message is None else {"message": message})
        path = f"/permission/{quote(permission_id, safe='')}/reply"
        await self._transport.call("POST", path, directory=directory, body=body)

    async def reject_question(self, question_id: str, directory: Path) -> None:
        """Refuse a question that the model asks the user."""
        await self._transport.call(
            "POST", f"/question/{quote(question_id, safe='')}/reject", directory=directory
        )

    async def providers(self, directory: Path) -> dict[str, Any]:
        """Return the usable providers and models of `directory`, loading it if need be.

        The answer contains resolved keys: never pass it on.
        """
        return as_object(
            await self._transport.call("GET", "/config/providers", directory=directory)
        )

    async def add_mcp(
        self, directory: Path, name: str, config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Add an MCP server to the loaded instance; it is gone after a dispose. Return all statuses."""
        body = {"name": name, "config": dict(config)}
        return as_object(await self._transport.call("POST", "/mcp", directory=directory, body=body))

    async def mcp_status(self, directory: Path) -> dict[str, Any]:
        """Return `{name: {"status": "connected" | "failed" | ...}}`."""
        return as_object(await self._transport.call("GET", "/mcp", directory=directory))

    async def dispose(self, directory: Path) -> None:
        """Unload `directory`. Its running turns are aborted; the next request loads it afresh."""
        await self._transport.call("POST", "/instance/dispose", directory=directory)

    async def global_dispose(self, *, timeout_seconds: float) -> None:
        """Unload every directory: aborts all turns, kills their tools, saves partial text."""
        bound = aiohttp.ClientTimeout(total=timeout_seconds)
        await self._transport.call("POST", "/global/dispose", bound=bound)

    async def doc(self) -> dict[str, Any]:
        """Return the child's OpenAPI document."""
        return as_object(await self._transport.call("GET", "/doc"))

    async def open_events(self) -> aiohttp.ClientResponse:
        """Open `/global/event`. The caller closes the response; there is no bound on silence here."""
        return await self.forward("GET", "/global/event", headers={"accept": "text/event-stream"})

    async def forward(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request as it is and return the unread answer, whatever its status.

        `path` and `query` are already encoded and travel byte for byte. Only connecting is bounded. The
        caller closes the response.
        """
        target = f"{self.base_url}{path}" + (f"?{query}" if query else "")
        return await self._transport.send(
            method,
            target,
            data=body,
            headers=headers,
            bound=UNBOUNDED,
        )


def _session(session_id: str, *more: str) -> str:
    return "/".join(("/session", quote(session_id, safe=""), *more))
