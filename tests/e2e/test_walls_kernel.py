"""What processes of one user share past all files: which of it reaches another session, and which does not.

What does not hold is here, too, so that docs/threat-model.md stays true in both directions. As root and as
the image's user; a process of the same user beside the sidecar stands for an operator's.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.confined import UID, Installation, Sessions, confined
from tests.scene import FAKES
from tests.waiting import until

SHARED = {"segment", "queue", "semaphore"}
"""System V IPC belongs to the user."""
SEEN = {"command line", "process name", "file name", "port", "service"}
"""What every process may look at, or connect to."""
DESKTOP = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "SSH_AUTH_SOCK", "KRB5CCNAME")
"""Variables that lead to services of a user."""
DISTURBED = {"affinity", "priority"}
"""What a process may change of others of its user."""
REFUSED = {"posix queue", "user keyring", "session keyring", "shared file"}
"""What a session can neither make nor reach."""


@dataclass
class World:
    """Two sessions and a process beside the sidecar; `planted` by what is called "victim" and "operator"."""

    sessions: Sessions
    python: str
    attacker: str
    folders: dict[str, Path]
    planted: dict[str, dict[str, Any]]
    secret: str
    owner: int

    async def attack(self) -> dict[str, str]:
        """Have the attacker's command try everything; return what it found."""
        here = self.sessions.workspace(self.attacker)
        shutil.copy(FAKES / "kernel_agent.py", here / "attack.py")
        targets: dict[str, Any] = {
            name: {"planted": planted, "folder": str(self.folders[name])}
            for name, planted in self.planted.items()
        }
        for name, pid in (("sidecar", self.sessions.sidecar.pid), ("opencode", self.opencode())):
            targets[name] = {"planted": {"pid": pid}, "folder": "/nowhere"}
        (here / "task.json").write_text(json.dumps(targets))
        said = await self.sessions.bash(self.attacker, f"{self.python} attack.py task.json")
        assert (here / "found").exists(), said
        found: dict[str, str] = json.loads((here / "found").read_text())
        return found

    def opencode(self) -> int:
        """Return its process id."""
        return int(self.sessions.process.entries("child started")[-1]["pid"])

    def was_signalled(self) -> set[str]:
        """Return which of the two got a signal."""
        return {name for name, folder in self.folders.items() if (folder / "signalled").exists()}


@asynccontextmanager
async def world(installation: Installation, root: Path, confinement: str) -> AsyncIterator[World]:
    """Plant secrets in a session and beside the sidecar."""
    owner = UID if installation.is_other_user else os.geteuid()
    data_dir = root / f"kernel-{secrets.token_hex(3)}"
    settings = dict.fromkeys(DESKTOP, "/of/a/desktop") | {"SIDECAR_CONFINEMENT": confinement}
    async with confined(installation, data_dir, **settings) as sessions:
        victim, attacker = await sessions.session(), await sessions.session()
        await sessions.bash(victim, "mkdir shares")
        await sessions.bash(attacker, "true")
        folders = {"victim": sessions.workspace(victim) / "shares", "operator": data_dir / "beside"}
        folders["operator"].mkdir()
        program = FAKES / "sharing_agent.py"
        for folder in folders.values():
            shutil.copy(program, folder / "share.py")
            os.chown(folder, owner, owner)
            (folder / "share.py").chmod(0o644)
        secret = f"planted-{secrets.token_hex(8)}"
        python = str(installation.python)
        share = f"{python} shares/share.py {folders['victim']} {secret}"
        await sessions.bash(victim, f"(setsid {share} &) >/dev/null 2>&1")
        beside = await asyncio.create_subprocess_exec(
            *installation.beside(sessions.sidecar.pid),
            *("python3", str(folders["operator"] / "share.py"), str(folders["operator"]), secret),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PRIVATE": secret},
        )
        try:
            marks = {name: folder / "planted" for name, folder in folders.items()}
            for mark in marks.values():
                await until(mark.exists)
            planted = {name: json.loads(mark.read_text()) for name, mark in marks.items()}
            yield World(sessions, python, attacker, folders, planted, secret, owner)
        finally:
            for folder in folders.values():
                (folder / "planted").unlink(missing_ok=True)
            await asyncio.wait_for(beside.wait(), 60)  # it takes away what it has planted


def told(found: dict[str, str], name: str) -> set[str]:
    """Return in how many ways something of that name was reached."""
    return {way.removesuffix(f" of {name}") for way in found if way.endswith(f" of {name}")}


async def test_what_processes_share_past_all_files(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only what the threat model's second half names."""
    root = tmp_path_factory.getbasetemp()
    async with world(installation, root, "required") as scene:
        assert set(scene.planted["victim"]) == {"pid", "port", "service", *SHARED}
        assert "shared file" in scene.planted["operator"]
        found = await scene.attack()
        for name in ("victim", "operator"):
            assert told(found, name) - DISTURBED == SHARED | SEEN, found
            for way in (SHARED | {"command line", "file name"}) - {"semaphore"}:
                assert scene.secret in found[f"{way} of {name}"]
        for name in ("sidecar", "opencode"):
            assert told(found, name) - DISTURBED == {"command line", "process name"}, found
        # Root's agents have fewer capabilities than what runs outside.
        is_root = os.geteuid() == 0 and not installation.is_other_user
        for name in ("victim", "opencode", *(() if is_root else ("sidecar", "operator"))):
            assert told(found, name) >= DISTURBED
        assert scene.was_signalled() == set()
        assert "/of/a/desktop" not in found["own variables"]


async def test_the_same_without_walls(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The attack works: it is the walls that hold what holds."""
    root = tmp_path_factory.getbasetemp()
    async with world(installation, root, "off") as scene:
        found = await scene.attack()
        reached = {"environment", "signal", "limit", "descriptor"}
        for name in ("victim", "operator"):
            planted = set(scene.planted[name]) & (SHARED | REFUSED) - {"session keyring"}
            assert planted >= {*SHARED, "shared file"}
            assert planted | SEEN | DISTURBED | reached <= told(found, name), found
        assert "limit" in told(found, "opencode"), "by which it could be killed"
        await until(lambda: scene.was_signalled() == {"victim", "operator"})
