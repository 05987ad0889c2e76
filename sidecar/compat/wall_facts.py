"""What confinement leans on: which programs opencode starts, and which paths its tools refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sidecar.compat.bench import CompatBench, expect
from sidecar.wire.external_directory import PERMISSION


async def the_shell_is_ours(bench: CompatBench) -> None:
    """The bash tool runs `$SHELL -c COMMAND`, in the session's directory."""
    prompt = await bench.prompt("[[bash: echo through-the-shell]] [[then]] [[say: done]]")
    await prompt.idle()
    calls = _calls(bench, "bash")
    expect(
        any(call[0] == str(prompt.directory) and call[1] == "-c" for call in calls),
        f"$SHELL was called with {calls}",
    )
    expect("through-the-shell" in str(calls), f"the command is not among {calls}")


async def searches_run_from_the_path(bench: CompatBench) -> None:
    """ripgrep is the first one on PATH."""
    expect(
        shutil.which("rg") is not None, "ripgrep is not on PATH, so opencode would bring its own"
    )
    prompt = await bench.prompt('[[tool: grep {"pattern": "needle"}]] [[then]] [[say: done]]')
    await prompt.idle()
    calls = _calls(bench, "rg")
    expect("needle" in str(calls), f"the rg on PATH was called with {calls}")


async def external_directory_is_obeyed(bench: CompatBench) -> None:
    """`external_directory` decides by the directory of a path whether a file tool may read it, and a
    command name it; the last rule that matches wins."""
    outside = bench.root / "outside"
    for name in ("open", "closed"):
        _write(outside / name / "file.txt", f"content-of-{name}")
    rules = [
        {"permission": PERMISSION, "pattern": "*", "action": "allow"},
        {"permission": PERMISSION, "pattern": f"{outside}/closed/*", "action": "deny"},
    ]
    for tool, arguments in (
        ("read", {"filePath": str(outside / "{name}" / "file.txt")}),
        ("bash", {"command": f"cat {outside}/{{name}}/file.txt", "description": "read"}),
    ):
        for name, is_read in (("open", True), ("closed", False)):
            call = json.dumps(arguments).replace("{name}", name)
            prompt = await bench.prompt(
                f"[[tool: {tool} {call}]] [[then]] [[say: done]]", permission=rules
            )
            await prompt.idle()
            messages = await bench.client.messages(prompt.session_id)
            states = [p["state"] for m in messages for p in m["parts"] if p["type"] == "tool"]
            seen = str([state.get("output") for state in states])
            expect((f"content-of-{name}" in seen) == is_read, f"{tool} of a path {name}: {states}")


def _calls(bench: CompatBench, name: str) -> list[list[str]]:
    """Return the calls of a program that the bench stands in for: directory and arguments."""
    log = bench.stand_ins / f"{name}.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [line.split("\x1f") for line in lines]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
