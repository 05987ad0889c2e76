"""The child's side of a session, with a client that answers as scripted."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.errors import ChildUnavailableError
from sidecar.managed.child.sessions import ChildSessions
from tests.turn_scripts import make_agent


class Client:
    """Refuses or never answers the first update of permissions, and takes the second."""

    def __init__(self, first: str) -> None:
        self._first: str | None = first
        self.updates = 0

    async def update_session_permission(self, _session_id: str, _rules: Any) -> None:
        first, self._first = self._first, None
        if first == "refused":
            raise ChildUnavailableError("opencode did not answer")
        if first == "silent":
            await asyncio.Event().wait()
        self.updates += 1


@pytest.mark.parametrize("first", ["refused", "silent"])
async def test_changed_permissions_are_sent_until_the_child_has_them(first: str) -> None:
    """A child that dies, or an interrupt, in the middle of it: the next prompt sends them again."""
    client: Any = Client(first)
    record: Any = SimpleNamespace(
        agent=make_agent(), child_session_id="ses_1", has_stale_tools=True, body={"title": None}
    )
    parts: Any = dict.fromkeys(
        ("supervisor", "instances", "pump", "mcp_servers", "repositories", "workspaces_dir")
    )
    parts["supervisor"] = SimpleNamespace(on_lost=lambda _callback: None)
    sessions = ChildSessions(**parts, prompt_wait_seconds=1.0)
    with pytest.raises((ChildUnavailableError, TimeoutError)):
        async with asyncio.timeout(0.05):
            await sessions._ensure_session(client, record, Path())
    await sessions._ensure_session(client, record, Path())
    assert client.updates == 1
    record.has_stale_tools = False  # as the session does when its prompt is noted
    await sessions._ensure_session(client, record, Path())
    assert client.updates == 1
