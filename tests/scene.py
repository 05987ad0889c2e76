"""What the suites about walls play: a session with something to lose, one that attacks, secrets everywhere.

The agent is real: commands and file tools of the real opencode. Secrets are planted first and looked for in
everything that the agent could get hold of.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sidecar.demo_gateway import DemoGateway
from tests.confined import Installation, Sessions, confined
from tests.waiting import patience, until

FAKES = Path(__file__).parent / "fakes"
ATTACK = FAKES / "attacking_agent.py"
ANSWER = FAKES / "answering_agent.py"
NEIGHBOUR = FAKES / "neighbour.py"
SWAP_FILES = (
    *(".secret.key.swp", "secret.key~", "secret.key.bak", "#secret.key#", ".secret.key.un~"),
    *(".sidecar.db.swp", "sidecar.db.bak"),
)
"""What editors leave beside a file that somebody has looked at."""


EVERYTHING = {
    *("gateway", "runtime", "admin", "diary", "note", "message", "swap", "abstract", "typed"),
    *("password", "relay token", "secret.key"),
}
"""What an agent without walls finds."""


@dataclass
class Scene:
    """A sidecar, a session with something to lose, and one that attacks."""

    installation: Installation
    sessions: Sessions
    victim: str
    attacker: str
    neighbour: int
    """A process with the sidecar's environment, a terminal, and an abstract socket."""
    terminal: str
    gateway: DemoGateway
    settings: dict[str, str]
    """The settings with secrets in them."""
    planted: dict[str, bytes] = field(default_factory=dict)
    """What must not be found, by name."""

    @property
    def python(self) -> str:
        """A Python for agents."""
        return str(self.installation.python)

    def found(self, text: bytes) -> set[str]:
        """Return the names of the secrets in the text."""
        return {name for name, secret in self.planted.items() if secret in text}

    def child(self) -> psutil.Process:
        """Return opencode."""
        pid = self.sessions.process.entries("child started")[-1]["pid"]
        below = self.sessions.sidecar.children(recursive=True)
        return next(p for p in below if self.installation.seen_pid(p.pid) == pid)

    def ports(self) -> list[int]:
        """Return every port that the sidecar and what it started listen on."""
        family = {p.pid for p in self.family()}
        return sorted(
            {
                connection.laddr.port
                for connection in psutil.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and connection.pid in family
            }
        )

    def family(self) -> list[psutil.Process]:
        """Return the sidecar, all below it, and what runs beside it."""
        sidecar = self.sessions.sidecar
        return [sidecar, psutil.Process(self.neighbour), *sidecar.children(recursive=True)]

    def environment(self) -> dict[str, str]:
        """Return the environment of the sidecar's container, which is that of commands beside it."""
        own = self.sessions.sidecar.environ()
        return own | self.settings

    def seen(self, path: Path) -> str:
        """Return a path as agents see it."""
        return self.installation.seen(path, self.sessions.data_dir)

    def task(self) -> dict[str, Any]:
        """Return what is worth an attack."""
        root = self.sessions.data_dir
        opencode = root / "opencode"
        victim = self.sessions.workspace(self.victim)
        names = ("secret.key", "sidecar.db", "sidecar.db-wal", "keys/runtime", *SWAP_FILES)
        files = [
            *(root / name for name in names),
            *(victim / "diary.txt", opencode / "private" / self.victim / "home" / "note"),
            opencode / "opencode.json",
            *(opencode / "data" / "opencode").glob("*.db*"),
        ]
        directories = (root, root / "workspaces", victim, opencode, opencode / "private")
        return {
            "is_harmless": False,
            "files": [self.seen(path) for path in files],
            "directories": [self.seen(path) for path in directories],
            "processes": [
                self.installation.seen_pid(process.pid)
                for process in self.family()
                if self._is_foreign(process)
            ],
            "ports": self.ports(),
            "sockets": [self.seen(path) for path in opencode.glob("*.sock")],
            "keepers": [self.seen(opencode / "keepers" / self.victim)],
            "terminals": [self.terminal],
            "victim": self.seen(victim),
        }

    def _is_foreign(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return self.attacker not in " ".join(process.cmdline())
        return False

    def arm(self, name: str, **changes: Any) -> Path:
        """Put the attack into the attacker's workspace; return its folder."""
        folder = self.sessions.workspace(self.attacker) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(ATTACK, folder / "attack.py")
        (folder / "task.json").write_text(json.dumps(self.task() | changes))
        self.give(folder.parent, folder, *folder.iterdir())
        return folder

    def give(self, *paths: Path) -> None:
        """Make the sidecar's user their owner."""
        owner = self.sessions.data_dir.stat()
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)

    def spoils(self, folder: Path) -> tuple[set[str], list[str]]:
        """Return the names of the secrets that an attack got, and what it could do."""
        return self.found((folder / "loot").read_bytes()), json.loads((folder / "acts").read_text())

    async def attack(self, name: str = "attack", **changes: Any) -> tuple[set[str], list[str]]:
        """Have a command of the attacker try everything; return the spoils."""
        folder = self.arm(name, **changes)
        command = f"{self.python} {name}/attack.py {name}/task.json"
        said = await self.sessions.bash(self.attacker, command, seconds=400)
        assert (folder / "done").exists(), said
        return self.spoils(folder)

    async def survive(self) -> tuple[set[str], list[str]]:
        """Have a process that left its command, its parents and its environment behind try everything."""
        folder = self.arm("survivor")
        program = f"{self.python} survivor/attack.py survivor/task.json"
        start = f"(setsid nohup env -i {program} &) >/dev/null 2>&1; echo"
        await self.sessions.bash(self.attacker, start)
        await until((folder / "done").exists, seconds=400)
        return self.spoils(folder)

    async def read_with_file_tools(self) -> str:
        """Have opencode's read, grep and glob look at all that is worth it, also behind links."""
        workspace = self.seen(self.sessions.workspace(self.attacker))
        task = self.task()
        child = self.installation.seen_pid(self.child().pid)
        targets = [*task["files"], f"/proc/{child}/environ", "/proc/self/environ"]
        links = [f"ln -sfn '{target}' link{n}" for n, target in enumerate(targets)]
        await self.sessions.bash(self.attacker, "; ".join([*links, "ln -sfn / root"]))
        calls = [
            ("read", {"filePath": path})
            for number, target in enumerate(targets)
            for path in (target, f"{workspace}/link{number}", f"link{number}", f"root{target}")
        ]
        for directory in (*task["directories"], "/proc", "/proc/self", "root", "."):
            calls.append(("grep", {"pattern": "planted|PASSWORD", "path": directory}))
            calls.append(("glob", {"pattern": "**/*", "path": directory}))
        return await self.sessions.tools(self.attacker, *calls)

    async def answers_itself(self) -> bool:
        """Return whether the file of an `always_ask` call is written while only a survivor wants it to be."""
        ask = [{"name": "write", "permission_policy": {"type": "always_ask"}}]
        session = await self.sessions.session(configs=ask)
        workspace = self.sessions.workspace(session)
        await self.sessions.bash(session, "pwd")
        shutil.copy(ANSWER, workspace / "answer.py")
        (workspace / "answer.py").chmod(0o755)
        ports = " ".join(map(str, self.ports()))
        command = f"(setsid {self.python} answer.py {ports} &) >/dev/null 2>&1"
        await self.sessions.bash(session, command)
        call = json.dumps({"filePath": self.seen(workspace / "file"), "content": "x"})
        events = await self.sessions.turn(session, f"[[tool: write {call}]]")
        assert events
        file, tried = workspace / "file", workspace / "rounds"

        def rounds() -> int:
            return int(tried.read_text() or 0) if tried.exists() else 0

        begun = rounds()
        await until(lambda: file.exists() or rounds() >= begun + 3)  # it has tried everything twice
        return file.exists()


@asynccontextmanager
async def scene(
    installation: Installation,
    data_dir: Path,
    confinement: str,
    *,
    without: Collection[str] = (),
    **settings: str,
) -> AsyncIterator[Scene]:
    """Run the sidecar, plant the secrets. Settings named in `without` are not set."""
    names = ("gateway", "runtime", "admin", "vault", "diary", "note", "message", "swap", "abstract")
    planted = {
        name: f"planted-{name}-{secrets.token_hex(8)}".encode() for name in (*names, "typed")
    }
    gateway = DemoGateway(key=planted["gateway"].decode())
    await gateway.start()
    settings = {
        "LITELLM_BASE_URL": gateway.url,
        "LITELLM_API_KEY": planted["gateway"].decode(),
        "RUNTIME_API_KEY": planted["runtime"].decode(),
        "SIDECAR_ADMIN_KEY": planted["admin"].decode(),
        "SIDECAR_CONFINEMENT": confinement,
        **settings,
    }
    settings = {name: value for name, value in settings.items() if name not in without}
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
        terminal = stack.enter_context(_terminal(data_dir, planted["typed"]))
        neighbour = await stack.enter_async_context(
            _neighbour(installation, sessions, settings, planted["abstract"])
        )
        made = Scene(
            installation,
            sessions,
            victim,
            attacker,
            neighbour,
            terminal,
            gateway,
            settings,
            planted,
        )
        for name in SWAP_FILES:
            (sessions.data_dir / name).write_bytes(planted["swap"])
            made.give(sessions.data_dir / name)
        child = made.child().environ()
        planted["password"] = child["OPENCODE_SERVER_PASSWORD"].encode()
        planted["relay token"] = child["SIDECAR_RELAY_TOKEN"].encode()
        key = (data_dir / "secret.key").read_bytes().strip()
        planted["secret.key"] = key
        planted["secret.key, raw"] = base64.b64decode(key)
        yield made


@contextlib.contextmanager
def _terminal(data_dir: Path, typed: bytes) -> Any:
    """A terminal of the sidecar's user at which somebody has typed; yield its path."""
    master, slave = os.openpty()
    owner = data_dir.stat()
    path = os.ttyname(slave)
    os.chown(path, owner.st_uid, owner.st_gid)
    os.write(master, typed + b"\n")
    try:
        yield path
    finally:
        os.close(master)
        os.close(slave)


@asynccontextmanager
async def _neighbour(
    installation: Installation, sessions: Sessions, settings: dict[str, str], secret: bytes
) -> AsyncIterator[int]:
    """A probe, a `make`, an operator's command: same user, same environment, beside the sidecar."""
    process = await asyncio.create_subprocess_exec(
        *installation.beside(sessions.sidecar.pid),
        *("python3", "-c", NEIGHBOUR.read_text(), f"of-{sessions.sidecar.pid}"),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **settings, "ABSTRACT": secret.decode()},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with patience():
            assert await process.stdout.readline()
        launched = psutil.Process(process.pid)
        yield next((p.pid for p in launched.children(recursive=True)), launched.pid)
    finally:
        process.kill()
        await process.wait()
