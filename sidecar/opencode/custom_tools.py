"""Tools that the client executes: the child's calls and the client's answers meet here.

opencode sees a session's custom tools as an MCP server of ours (`sidecar.opencode.tool_server`). Its call
carries a name and an input but not the id under which the turn knows it, so calls and answers are paired
by name and input, whichever comes first; among equal calls any pairing is right.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to. `content` holds the API's blocks."""

    content: Sequence[Mapping[str, Any]]
    is_error: bool


@dataclass(slots=True)
class _Pairing:
    calls: defaultdict[Key, deque[asyncio.Future[ToolResult]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    answers: defaultdict[Key, deque[ToolResult]] = field(default_factory=lambda: defaultdict(deque))


class CustomTools:
    """Pairs calls with answers, per session; and knows each session's token for its tool server."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._pairings: dict[str, _Pairing] = {}

    def token(self, session_id: str) -> str:
        """Return what the child must show to reach this session's tools; new with each boot of ours."""
        return hmac.new(self._secret, session_id.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session_id: str, offered: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.token(session_id).encode(), offered.encode())

    async def call(self, session_id: str, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Wait, without limit, for the client's answer. Cancelled when the session's turn ends."""
        pairing, key = self._pairing(session_id), _key(name, arguments)
        if pairing.answers[key]:
            return pairing.answers[key].popleft()
        future: asyncio.Future[ToolResult] = asyncio.get_running_loop().create_future()
        pairing.calls[key].append(future)
        return await future

    def answer(
        self, session_id: str, name: str, arguments: Mapping[str, Any], result: ToolResult
    ) -> None:
        """Give the client's answer to the call that waits for it, or to the one that will come."""
        pairing, key = self._pairing(session_id), _key(name, arguments)
        while pairing.calls[key]:
            future = pairing.calls[key].popleft()
            if not future.done():
                future.set_result(result)
                return
        pairing.answers[key].append(result)

    def clear(self, session_id: str) -> None:
        """The turn is over: waiting calls are cancelled, answers that no call has taken are dropped."""
        pairing = self._pairings.pop(session_id, None)
        if pairing is None:
            return
        for futures in pairing.calls.values():
            for future in futures:
                future.cancel()

    def _pairing(self, session_id: str) -> _Pairing:
        return self._pairings.setdefault(session_id, _Pairing())


def _key(name: str, arguments: Mapping[str, Any]) -> Key:
    return name, json.dumps(arguments, sort_keys=True)
