"""Packages of an environment (`pip` and `npm`), installed into a session's directory before its first turn.

A package's set-up is a stranger's code, so the agent's own shell runs it: in the child, behind the same
walls, with the session's variables and nothing of ours. `pip` installs into `.venv`, `npm` into
`node_modules`; the programs of both are first on the PATH of the session's shells.

What is installed is remembered by a file in the directory, made by the same command. An agent can change that
only for itself, and where the directory is lost, so is the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog

from sidecar.config import PackageSettings
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.managed.turns.failures import Failure, TurnFailedError
from sidecar.naming import ModelRef
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import AGENT

Wanted = Mapping[str, Sequence[str]]
"""Packages by manager, as the environment has them; `pip` and `npm` are installed."""

INSTALLED = ("pip", "npm")
_PROGRAMS = {"pip": "python3", "npm": "npm"}
"""What each needs: pip comes with the virtual environment."""
PATH_FOLDERS = (".venv/bin", "node_modules/.bin")
"""Where the programs of the packages are, below the session's directory."""

_MARKERS = ".packages"
_SHOWN_CHARS = 1500
_ABORT_SECONDS = 5.0

_log = structlog.get_logger(__name__)


def has_manager(name: str, *, search_path: str | None) -> bool:
    """Whether what installs such packages is on `search_path`. Looks at files."""
    return shutil.which(_PROGRAMS[name], path=search_path) is not None


class Packages:
    """Installs what environments want. `installs` and `failures` are for the metrics."""

    def __init__(
        self, *, settings: PackageSettings, end_processes: Callable[[Path], Awaitable[object]]
    ) -> None:
        self._settings = settings
        self._end_processes = end_processes
        self._places = asyncio.Semaphore(settings.max_parallel)
        self.installs = 0
        self.failures = 0

    async def install(
        self, client: ChildClient, wanted: Wanted, directory: Path, *, model: ModelRef
    ) -> None:
        """Install what is not there yet. The directory is loaded in opencode, and no turn works in it.

        Raises TurnFailedError with the end of what the package manager wrote; the next turn tries again.
        """
        marker = directory / _MARKERS / _digest(wanted)
        if not any(wanted.get(manager) for manager in INSTALLED) or await _is_there(marker):
            return
        command = _command(wanted, marker.name)
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds), self._places:
                output = await self._run(client, command, directory, model)
        except TimeoutError:
            output = f"it took longer than {seconds:g} seconds (SIDECAR_PACKAGES_TIMEOUT_SECONDS)"
        except ChildUnavailableError:
            raise
        except ChildError as error:
            output = error.message
        if await _is_there(marker):
            self.installs += 1
            _log.info("packages installed", directory=str(directory))
            return
        self.failures += 1
        _log.warning("packages not installed", directory=str(directory), output=output[-300:])
        raise TurnFailedError(
            Failure(
                "unknown_error",
                "the environment's packages could not be installed; the next message tries again: "
                f"{output.strip()[-_SHOWN_CHARS:] or 'the command ended without a word'}",
            )
        )

    async def _run(
        self, client: ChildClient, command: str, directory: Path, model: ModelRef
    ) -> str:
        """Run the command in a session of its own, which the conversation's knows nothing of."""
        session_id = await client.create_session(directory, title="packages")
        try:
            return await client.run_shell(session_id, command, agent=AGENT, model=model)
        finally:
            # Also what it left behind: nothing of it may go on beside the turn.
            with contextlib.suppress(TimeoutError, ChildError):
                async with asyncio.timeout(_ABORT_SECONDS):
                    await client.abort(session_id)
                    await self._end_processes(directory)
                    await client.delete_session(session_id)


async def _is_there(marker: Path) -> bool:
    # Not opened, and no link of it followed: the directory is the agent's.
    return await asyncio.to_thread(os.path.lexists, marker)


def _command(wanted: Wanted, marker: str) -> str:
    """Return the shell command that installs the packages and then makes the marker.

    It writes to a file: opencode would wait for a process that is left behind and holds the command's output.
    """
    steps = []
    if wanted.get("pip"):
        steps += [
            "{ test -x .venv/bin/python || python3 -m venv .venv; }",
            ".venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check -- "
            + shlex.join(wanted["pip"]),
        ]
    if wanted.get("npm"):
        steps.append(
            "npm install --prefix . --no-audit --no-fund --loglevel=error -- "
            + shlex.join(wanted["npm"])
        )
    log = f"{_MARKERS}/log"
    install = f"{{ {' && '.join(steps)}; }} > {log} 2>&1 < /dev/null"
    done = f": > {_MARKERS}/{marker}"
    return f"mkdir -p {_MARKERS} && {{ {install} && {done} || tail -c 3000 {log}; }}"


def _digest(wanted: Wanted) -> str:
    named = {manager: list(wanted.get(manager) or ()) for manager in INSTALLED}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
