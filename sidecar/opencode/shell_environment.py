"""Hands a session's variables to the shells of that session only.

Our plug-in in the child (`plugin/shell_environment.js`) asks before every command of an agent. A token
could not protect this: agents run as the child's user and can read its environment. So the plug-in
connects to a Unix socket, for which the kernel reports the process at the other end; only the child
itself is answered, not the shells below it. Across containers the kernel reports it (anything but 0) only
where they share their process namespace (`attached_process`).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

import structlog
from aiohttp import web

from sidecar.errors import SidecarError

VariablesOf = Callable[[Path], Awaitable[Mapping[str, str]]]
"""Returns the variables for shells of a session's directory."""

_LOCAL_PEERPID = 2
"""macOS' counterpart of SO_PEERCRED, at level SOL_LOCAL; not in Python's socket module."""
_SOL_LOCAL = 0

_log = structlog.get_logger(__name__)


class ShellEnvironment:
    """Listens on a Unix socket at `path` and answers `child_pids()` only: each opencode that there is."""

    def __init__(
        self, *, path: Path, child_pids: Callable[[], Collection[int]], variables_of: VariablesOf
    ) -> None:
        self._path = path
        self._child_pids = child_pids
        self._variables_of = variables_of
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. A socket left by a killed sidecar is replaced. Raises OSError."""
        app = web.Application()
        app.router.add_post("/shell-environment", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        await web.UnixSite(self._runner, str(self._path)).start()
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _answer(self, request: web.Request) -> web.Response:
        peer, children = _peer_pid(request), self._child_pids()
        if peer not in children:
            # Without a child that we know, this is every command of every agent.
            report = _log.warning if children else _log.debug
            report("shell environment refused", peer=peer, children=list(children))
            return web.json_response({"error": "only the child is answered here"}, status=403)
        try:
            directory = (await request.json())["directory"]
            variables = await self._variables_of(Path(directory))
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": "send {directory}"}, status=400)
        except SidecarError as error:
            _log.error("shell environment failed", directory=directory, error=error.message)
            return web.json_response({"error": error.message}, status=500)
        return web.json_response({"environment": dict(variables)})


def _peer_pid(request: web.Request) -> int | None:
    """Return the id of the process that opened the connection, as the kernel knows it."""
    peer = request.transport.get_extra_info("socket") if request.transport else None
    if peer is None:
        return None
    try:
        if sys.platform == "linux":
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("3i", credentials)[0])
        return int(peer.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID))
    except OSError:
        return None
