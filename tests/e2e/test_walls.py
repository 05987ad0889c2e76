"""An agent that wants out: what it can read, signal, write and answer from its session, and what it cannot.

The agent is real: commands and file tools of the real opencode, in a sidecar that runs as root and as the
image's user. Secrets are planted first and looked for in everything that the agent could get hold of.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.confined import Installation, Sessions, confined
from tests.waiting import until

ATTACK = Path(__file__).parents[1] / "fakes" / "attacking_agent.py"
ANSWER = ATTACK.with_name("answering_agent.py")


@dataclass
class Scene:
    """A sidecar, a session with something to lose, and one that attacks."""

    sessions: Sessions
    python: Path
    victim: str
    attacker: str
    beside: int
    """A process with the sidecar's environment."""
    planted: dict[str, bytes] = field(default_factory=dict)
    """What must not be found, by name."""

    def found(self, text: bytes) -> set[str]:
        """Return the names of the secrets in the text."""
        return {name for name, secret in self.planted.items() if secret in text}

    def child(self) -> psutil.Process:
        """Return opencode."""
        return psutil.Process(self.sessions.process.entries("child started")[-1]["pid"])

    def task(self) -> dict[str, object]:
        """Return what is worth an attack."""
        root = self.sessions.data_dir
        opencode = root / "opencode"
        victim = self.sessions.workspace(self.victim)
        files = [
            *(
                root / name
                for name in ("secret.key", "sidecar.db", "sidecar.db-wal", "keys/runtime")
            ),
            *(victim / "diary.txt", opencode / "private" / self.victim / "home" / "note"),
            opencode / "opencode.json",
            *(opencode / "data" / "opencode").glob("*.db*"),
        ]
        sidecar = self.sessions.process.process.pid
        family = [
            sidecar,
            self.beside,
            *(p.pid for p in psutil.Process(sidecar).children(recursive=True)),
        ]
        ports = {
            connection.laddr.port
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.pid in family
        }
        return {
            "is_harmless": False,
            "files": [str(path) for path in files],
            "directories": [
                str(path)
                for path in (root, root / "workspaces", victim, opencode, opencode / "private")
            ],
            "processes": [pid for pid in family if self._is_foreign(pid)],
            "ports": sorted(ports),
            "sockets": [str(path) for path in opencode.glob("*.sock")],
            "keepers": [str(opencode / "keepers" / self.victim)],
            "victim": str(victim),
        }

    def _is_foreign(self, pid: int) -> bool:
        with suppress(psutil.Error):
            return self.attacker not in " ".join(psutil.Process(pid).cmdline())
        return False

    def arm(self, name: str) -> Path:
        """Put the attack into the attacker's workspace; return its folder."""
        folder = self.sessions.workspace(self.attacker) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(ATTACK, folder / "attack.py")
        (folder / "task.json").write_text(json.dumps(self.task()))
        owner = self.sessions.data_dir.stat()
        for path in (folder.parent, folder, *folder.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
        return folder

    def spoils(self, folder: Path) -> tuple[set[str], list[str]]:
        """Return the names of the secrets that an attack got, and what it could do."""
        return self.found((folder / "loot").read_bytes()), json.loads((folder / "acts").read_text())


@asynccontextmanager
async def scene(
    installation: Installation, data_dir: Path, confinement: str
) -> AsyncIterator[Scene]:
    """Run the sidecar, plant the secrets."""
    planted = {
        name: f"planted-{name}-{secrets.token_hex(8)}".encode()
        for name in ("gateway", "runtime", "admin", "vault", "diary", "note", "message")
    }
    gateway = DemoGateway(key=planted["gateway"].decode())
    await gateway.start()
    settings = {
        "LITELLM_BASE_URL": gateway.url,
        "LITELLM_API_KEY": planted["gateway"].decode(),
        "RUNTIME_API_KEY": planted["runtime"].decode(),
        "SIDECAR_ADMIN_KEY": planted["admin"].decode(),
        "SIDECAR_CONFINEMENT": confinement,
    }
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        sessions = await stack.enter_async_context(confined(installation, data_dir, **settings))
        vault = await sessions.vault("DEPLOY_KEY", planted["vault"].decode())
        victim, attacker = await sessions.session(vault), await sessions.session()
        command = (
            f"echo {planted['diary'].decode()} > diary.txt; echo {planted['note'].decode()} > ~/note; "
            "(sleep 600 &) >/dev/null 2>&1; echo ok"
        )
        assert "ok" in await sessions.bash(victim, command)
        await sessions.turn(victim, planted["message"].decode())
        # A probe, a `make`, an operator's command: same user, same environment, beside the sidecar.
        beside = await asyncio.create_subprocess_exec(
            *(installation.command[:-3] if installation.is_other_user else []),
            *("sleep", "600"),
            env={"PATH": "/usr/bin:/bin", **settings},
        )
        try:
            scene = Scene(sessions, installation.python, victim, attacker, beside.pid, planted)
            child = scene.child().environ()
            planted["password"] = child["OPENCODE_SERVER_PASSWORD"].encode()
            planted["relay token"] = child["SIDECAR_RELAY_TOKEN"].encode()
            key = (data_dir / "secret.key").read_bytes().strip()
            planted["secret.key"] = key
            planted["secret.key, raw"] = base64.b64decode(key)
            yield scene
        finally:
            beside.kill()
            await beside.wait()


@pytest.fixture(scope="module")
async def walls(
    installation: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """A scene behind walls."""
    data_dir = tmp_path_factory.getbasetemp() / f"data-{secrets.token_hex(3)}"
    async with scene(installation, data_dir, "required") as set_up:
        yield set_up


async def asks_beside_a_survivor(scene: Scene) -> Path:
    """Have a session ask for a file while only a survivor wants it to be written; return its path."""
    ask = [{"name": "write", "permission_policy": {"type": "always_ask"}}]
    session = await scene.sessions.session(configs=ask)
    workspace = scene.sessions.workspace(session)
    await scene.sessions.bash(session, "pwd")
    shutil.copy(ANSWER, workspace / "answer.py")
    (workspace / "answer.py").chmod(0o755)
    ports = " ".join(map(str, scene.task()["ports"]))  # type: ignore[call-overload]
    command = f"(setsid {scene.python} answer.py {ports} &) >/dev/null 2>&1"
    await scene.sessions.bash(session, command)
    call = json.dumps({"filePath": str(workspace / "file"), "content": "x"})
    events = await scene.sessions.turn(session, f"[[tool: write {call}]]")
    assert events
    return workspace / "file"


async def survivor_has_tried(workspace: Path) -> None:
    """Wait until the survivor has asked everything that it can reach twice, from beginning to end."""

    def rounds() -> int:
        file = workspace / "rounds"
        return int(file.read_text() or 0) if file.exists() else 0

    begun = rounds()
    await until(lambda: rounds() >= begun + 3)


async def test_a_command_gets_and_does_nothing(walls: Scene) -> None:
    """No way to a file, process or port of others leads a bash command out of its session."""
    folder = walls.arm("attack")
    await walls.sessions.bash(walls.attacker, f"{walls.python} attack/attack.py attack/task.json")
    assert walls.spoils(folder) == (set(), [])


async def test_a_survivor_gets_and_does_nothing(walls: Scene) -> None:
    """A process that left its command, its parents and its environment behind is still inside."""
    folder = walls.arm("survivor")
    start = f"(setsid env -i {walls.python} survivor/attack.py survivor/task.json &) >/dev/null 2>&1; echo"
    await walls.sessions.bash(walls.attacker, start)
    await until((folder / "done").exists)
    assert walls.spoils(folder) == (set(), [])


async def test_file_tools_read_nothing_of_others(walls: Scene) -> None:
    """opencode's read, grep and glob refuse what is not the session's, also behind links."""
    workspace = walls.sessions.workspace(walls.attacker)
    task = walls.task()
    targets = [*map(str, task["files"]), f"/proc/{walls.child().pid}/environ", "/proc/self/environ"]  # type: ignore[call-overload]
    await walls.sessions.bash(
        walls.attacker,
        "; ".join(f"ln -sfn {t} link{n}" for n, t in enumerate(targets)) + "; ln -sfn / root",
    )
    calls = [
        ("read", {"filePath": path})
        for number, target in enumerate(targets)
        for path in (target, f"{workspace}/link{number}", f"link{number}", f"root{target}")
    ]
    for directory in (*map(str, task["directories"]), "/proc", "/proc/self", "root", "."):  # type: ignore[call-overload]
        calls.append(("grep", {"pattern": "planted|PASSWORD", "path": directory}))
        calls.append(("glob", {"pattern": "**/*", "path": directory}))
    said = await walls.sessions.tools(walls.attacker, *calls)
    assert walls.found(said.encode()) == set()
    assert "outside of this session's directory" in said


async def test_file_tools_write_nothing_of_others(walls: Scene) -> None:
    """opencode's write and edit change nothing outside, not even behind a link to a file yet to come."""
    victim = walls.sessions.workspace(walls.victim)
    before = (victim / "diary.txt").read_bytes()
    config = walls.sessions.data_dir / "opencode" / "config" / "opencode" / "plugin" / "evil.js"
    await walls.sessions.bash(
        walls.attacker,
        f"ln -sfn {victim} house; ln -sfn {victim}/new.txt new; ln -sfn {config} evil",
    )
    paths = (f"{victim}/new.txt", "house/new.txt", "new", "evil", str(config))
    calls = [("write", {"filePath": path, "content": "intruder"}) for path in paths]
    edit = {"oldString": "planted", "newString": "stolen"}
    calls += [("edit", {"filePath": p, **edit}) for p in (f"{victim}/diary.txt", "house/diary.txt")]
    await walls.sessions.tools(walls.attacker, *calls)
    assert (victim / "diary.txt").read_bytes() == before
    assert not (victim / "new.txt").exists()
    assert not config.exists()


async def test_what_opencode_runs_for_itself_is_inside(walls: Scene) -> None:
    """git in a directory whose configuration is the agent's runs the agent's program in its session only."""
    folder = walls.arm("hooks")
    program = f"#!/bin/sh\\n{walls.python} {folder}/attack.py {folder}/task.json\\n"
    setup = (
        f"git init -q . && printf '{program}' > hook && chmod +x hook && git config core.fsmonitor $PWD/hook "
        "&& git config filter.x.clean $PWD/hook && echo '* filter=x' > .gitattributes; echo"
    )
    await walls.sessions.bash(walls.attacker, setup)
    async with walls.sessions.http.get(
        "/vcs", params={"directory": str(walls.sessions.workspace(walls.attacker))}
    ) as answer:
        await answer.read()
    await walls.sessions.bash(walls.attacker, "git status >/dev/null 2>&1; echo")
    assert (folder / "loot").exists()
    got, acts = walls.spoils(folder)
    assert (got, acts) == (set(), [])


async def test_an_agent_cannot_answer_its_own_permission_request(walls: Scene) -> None:
    """The file of an `always_ask` call does not appear while only a background process wants it to."""
    file = await asks_beside_a_survivor(walls)
    await survivor_has_tried(file.parent)
    assert not file.exists()


async def test_the_suite_finds_everything_without_walls(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With SIDECAR_CONFINEMENT=off the same attack succeeds: it is the walls that hold it."""
    data_dir = tmp_path_factory.getbasetemp() / f"data-{secrets.token_hex(3)}"
    async with scene(installation, data_dir, "off") as open_scene:
        folder = open_scene.arm("attack")
        task = json.loads((folder / "task.json").read_text()) | {"is_harmless": True}
        (folder / "task.json").write_text(json.dumps(task))
        python = open_scene.python
        await open_scene.sessions.bash(
            open_scene.attacker, f"{python} attack/attack.py attack/task.json"
        )
        got, acts = open_scene.spoils(folder)
        await until((await asks_beside_a_survivor(open_scene)).exists)
    expected = {
        "gateway",
        "runtime",
        "admin",
        "diary",
        "message",
        "password",
        "relay token",
        "secret.key",
    }
    assert expected <= got
    assert [act for act in acts if act.startswith("signal")]
