"""An agent that wants out: what it can read, signal, write and answer from its session, and what it cannot.

In a sidecar that runs as root and as the image's user; `tests/scene.py` has the attacks.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.confined import Installation
from tests.scene import EVERYTHING, Scene, scene


@pytest.fixture(scope="module")
async def walls(
    installation: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """A scene behind walls."""
    data_dir = tmp_path_factory.getbasetemp() / f"data-{secrets.token_hex(3)}"
    async with scene(installation, data_dir, "required") as set_up:
        yield set_up


async def test_a_command_gets_and_does_nothing(walls: Scene) -> None:
    """No way to a file, process or port of others leads a bash command out of its session."""
    assert len(walls.ports()) >= 5, "API, administration, relay, tool server, opencode"
    assert await walls.attack() == (set(), [])


async def test_a_survivor_gets_and_does_nothing(walls: Scene) -> None:
    """A process that left its command, its parents and its environment behind is still inside."""
    assert await walls.survive() == (set(), [])


async def test_file_tools_read_nothing_of_others(walls: Scene) -> None:
    """opencode's read, grep and glob refuse what is not the session's, also behind links."""
    said = await walls.read_with_file_tools()
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


async def test_file_tools_take_only_files(walls: Scene) -> None:
    """A named pipe would hold a thread of opencode until somebody writes: it is refused at once."""
    await walls.sessions.bash(walls.attacker, "rm -f pipe; mkfifo pipe")
    calls = [("read", {"filePath": "pipe"})] * 8 + [("write", {"filePath": "pipe", "content": "x"})]
    said = await walls.sessions.tools(walls.attacker, *calls)
    assert said.count("neither a file nor a directory") == len(calls), said


async def test_instructions_beside_a_file_are_read_through_no_link(walls: Scene) -> None:
    """opencode shows a model AGENTS.md of the directories above what it reads; a link of it leads nowhere."""
    victim = walls.sessions.workspace(walls.victim)
    names = ("AGENTS.md", "CLAUDE.md", "CONTEXT.md")
    made = [
        f"mkdir -p in/{name}.d/below && echo text > in/{name}.d/below/file "
        f"&& ln -sfn {victim}/diary.txt in/{name}.d/{name}"
        for name in names
    ]
    await walls.sessions.bash(walls.attacker, " && ".join([*made, "echo"]))
    calls = [("read", {"filePath": f"in/{name}.d/below/file"}) for name in names]
    said = await walls.sessions.tools(walls.attacker, *calls)
    assert walls.found(said.encode()) == set()
    assert said.count("outside of this session's directory") == len(names), said


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
    await walls.sessions.bash(walls.attacker, "git config --unset core.fsmonitor; rm -rf .git*")
    assert (folder / "loot").exists()
    got, acts = walls.spoils(folder)
    assert (got, acts) == (set(), [])


async def reload(walls: Scene, session: str) -> None:
    """Have opencode unload every directory that nothing works in: the next turn loads it anew."""
    url = (await walls.sessions.process.logged("admin listener"))["url"]
    key = {"x-api-key": walls.planted["admin"].decode()}
    async with walls.sessions.http.post(f"{url}/admin/reload", headers=key) as answer:
        assert answer.status == 200, await answer.text()
        assert session not in str((await answer.json())["later"])


def leave_traps(workspace: Path, home: Path, ran: Path) -> None:
    """Write what opencode, or Bun below it, could load from a directory; whatever runs adds to `ran`."""
    module = workspace / "evil.js"
    trap = {"command": ["sh", "-c", f"echo started >> {ran}"], "extensions": [".txt"]}
    config = {
        "plugin": ["./evil.js", f"file://{module}"],
        "instructions": ["evil.md"],
        "mcp": {"evil": {"type": "local", "command": trap["command"]}},
        "formatter": {"evil": trap},
        "lsp": {"evil": trap},
        "shell": str(workspace / "evil.sh"),
    }
    texts = {
        workspace / "evil.sh": f"#!/bin/sh\necho shell >> {ran}\n",
        workspace / ".env": f"BUN_OPTIONS=--preload={module}\n",
        module: f"import fs from 'node:fs'; fs.appendFileSync('{ran}', import.meta.url + '\\n')\n"
        "export default async () => ({})\n",
    }
    for place in (workspace, home):
        texts |= {
            place / name: f'preload = ["{module}"]\n' for name in ("bunfig.toml", ".bunfig.toml")
        }
    folders = (".", ".opencode", ".claude", ".config/opencode")
    for folder in (place / name for place in (workspace, home) for name in folders):
        texts |= {folder / name: json.dumps(config) for name in ("opencode.json", "opencode.jsonc")}
        texts |= {
            folder / name: "evil instructions" for name in ("evil.md", "AGENTS.md", "CLAUDE.md")
        }
        for kind in ("plugin", "plugins", "tool", "tools"):
            texts[folder / kind / "evil.js"] = texts[module]
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o777)
        path.parent.chmod(0o777)


async def test_opencode_loads_nothing_of_a_workspace(walls: Scene) -> None:
    """Plug-ins, tools, MCP servers and configuration that an agent leaves there would run outside."""
    session = await walls.sessions.session()
    await walls.sessions.bash(session, "true")
    workspace = walls.sessions.workspace(session)
    home = walls.sessions.data_dir / "opencode" / "private" / session / "home"
    ran = workspace / "ran"
    leave_traps(workspace, home, ran)
    await reload(walls, session)
    path = str(workspace / "new.txt")
    await walls.sessions.tool(session, "write", filePath=path, content="x")
    await walls.sessions.tool(session, "read", filePath=path)
    await walls.sessions.tool(session, "glob", pattern="**/*.txt")
    params = {"directory": str(workspace), "query": "new"}
    async with walls.sessions.http.get("/find/file", params=params) as answer:
        assert answer.status == 200
    assert "fine" in await walls.sessions.bash(session, "echo fine")
    assert not ran.exists(), ran.read_text()
    sent = json.dumps([request.body for request in list(walls.gateway.requests)[-3:]])
    assert "evil instructions" not in sent


async def test_opencode_writes_through_no_link_when_it_loads_a_workspace(walls: Scene) -> None:
    """What it keeps in a directory by itself (`.git/opencode`) leads to no other's file."""
    victim = walls.sessions.workspace(walls.victim)
    outside = (
        *(victim / "opened", walls.sessions.data_dir / "opencode" / "config" / "opencode" / "a.js"),
    )
    for target in outside:
        script = (
            "rm -rf .git; git init -q . && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m x "
            f"&& ln -sfn {target} .git/opencode && echo made"
        )
        assert "made" in await walls.sessions.bash(walls.attacker, script)
        await reload(walls, walls.attacker)
        assert "fine" in await walls.sessions.bash(walls.attacker, "echo fine")
        assert not target.exists(), target.read_text()
    await walls.sessions.bash(walls.attacker, "rm -rf .git")


async def test_long_output_is_moved_through_no_link(walls: Scene) -> None:
    """Where the session's own directory for it has become a link, the text stays where it is."""
    victim = walls.sessions.workspace(walls.victim)
    before = sorted(victim.iterdir())
    swap = f"rm -rf $TMPDIR && ln -s {victim} $TMPDIR; seq 100000; sleep 1"
    await walls.sessions.bash(walls.attacker, swap)
    assert sorted(victim.iterdir()) == before
    await walls.sessions.bash(walls.attacker, "rm -f ${TMPDIR%/} && mkdir $TMPDIR")


async def test_an_agent_cannot_answer_its_own_permission_request(walls: Scene) -> None:
    """The file of an `always_ask` call does not appear while only a background process wants it to."""
    assert not await walls.answers_itself()


async def test_a_crash_leaves_no_image_of_memory(walls: Scene) -> None:
    """opencode may write no core file (of commands the attack has seen that), and the sidecar is closed."""
    limits = Path(f"/proc/{walls.child().pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"], "soft and hard"
    if walls.installation.is_other_user:
        # What has declared itself not dumpable is root's in /proc, and leaves no core either.
        assert Path(f"/proc/{walls.sessions.sidecar.pid}/environ").stat().st_uid == 0


async def test_the_suite_finds_everything_without_walls(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With SIDECAR_CONFINEMENT=off the same attack succeeds: it is the walls that hold it."""
    data_dir = tmp_path_factory.getbasetemp() / f"data-{secrets.token_hex(3)}"
    async with scene(installation, data_dir, "off") as open_scene:
        got, acts = await open_scene.attack(is_harmless=True)
        loot = (open_scene.sessions.workspace(open_scene.attacker) / "attack" / "loot").read_bytes()
        could_answer = await open_scene.answers_itself()
    assert EVERYTHING - got == set()
    assert [act for act in acts if act.startswith("signal")]
    assert [act for act in acts if act.startswith("open /dev/pts")]
    if Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() == "0" or os.geteuid() == 0:
        assert b"--- io_uring" in loot
    assert could_answer
