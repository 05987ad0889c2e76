"""`opencode-sidecar config` and the program's own options, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sidecar.settings_table import markdown_table
from tests import program

SECRET = "a-secret-that-must-not-appear"


async def config(home: Path, *arguments: str, **variables: str) -> program.Done:
    return await program.sidecar("config", *arguments, home=home, **variables)


async def effective(home: Path, **variables: str) -> dict[str, dict[str, Any]]:
    done = await config(home, "--json", **variables)
    assert done.code == 0, done.err
    assert SECRET not in done.out
    return {row["variable"]: row for row in done.json["settings"]}


async def test_every_setting_tells_its_source(tmp_path: Path) -> None:
    """Default, environment and file are distinguished, and a secret is only a mask."""
    file = tmp_path / "key"
    file.write_text(SECRET)
    rows = await effective(
        tmp_path,
        PORT="9",
        RUNTIME_API_KEY=SECRET,
        LITELLM_API_KEY_FILE=str(file),
        LITELLM_MODELS="a, b",
        HOST="",
    )

    assert (rows["PORT"]["value"], rows["PORT"]["source"], rows["PORT"]["default"]) == (
        9,
        "environment",
        8080,
    )
    assert (rows["RUNTIME_API_KEY"]["value"], rows["RUNTIME_API_KEY"]["source"]) == (
        "***",
        "environment",
    )
    key = rows["LITELLM_API_KEY"]
    assert (key["value"], key["source"], key["file"]) == ("***", "file", str(file))
    assert rows["LITELLM_MODELS"]["value"] == ["a", "b"]
    assert (rows["HOST"]["value"], rows["HOST"]["source"]) == (None, "default")
    assert (rows["CURSOR_API_KEY"]["value"], rows["CURSOR_API_KEY"]["is_secret"]) == (None, True)


async def test_the_table_shows_what_was_set_without_secrets(tmp_path: Path) -> None:
    """The readable form has variable, value and source on one line; passwords in URLs are masked too."""
    done = await config(
        tmp_path, RUNTIME_API_KEY=SECRET, LITELLM_BASE_URL=f"http://me:{SECRET}@gateway:4000/v1"
    )
    lines = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}

    assert SECRET not in done.out
    assert lines["RUNTIME_API_KEY"] == ["***", "environment"]
    assert lines["LITELLM_BASE_URL"] == ["http://***@gateway:4000/v1", "environment"]
    assert lines["SIDECAR_TURN_MAX_SECONDS"] == ["7200", "default"]


async def test_settings_that_cannot_be_used_are_2(tmp_path: Path) -> None:
    """A wrong value is named by its variable."""
    done = await config(tmp_path, PORT="eighty")

    assert done.code == 2
    assert "PORT" in done.err


async def test_the_schema_describes_every_variable(tmp_path: Path) -> None:
    """JSON Schema has each variable of the README's table, with type, bounds and meaning."""
    schema = (await config(tmp_path, "--schema")).json
    documented = {
        line.split("`")[1] for line in markdown_table().splitlines() if line.startswith("| `")
    }

    assert documented <= schema["properties"].keys()
    assert schema["properties"]["PORT"]["maximum"] == 65535
    assert "CURSOR_API_KEY_FILE" in schema["properties"]
    assert all(described.get("description") for described in schema["properties"].values())


async def test_markdown_is_the_readme_table(tmp_path: Path) -> None:
    """`--markdown` prints the table that the README holds, broken settings or not."""
    done = await config(tmp_path, "--markdown", PORT="eighty")

    assert done.out.strip() == markdown_table().strip()


async def test_help_leads_a_newcomer(tmp_path: Path) -> None:
    """The help names every command and how to begin."""
    done = await program.sidecar("--help", home=tmp_path)

    assert done.code == 0
    for word in ("serve", "run", "models", "doctor", "config", "LITELLM_BASE_URL", "Exit codes"):
        assert word in done.out


async def test_a_wrong_option_is_2(tmp_path: Path) -> None:
    """Usage errors have the code that shells expect."""
    assert (await program.sidecar("models", "--nope", home=tmp_path)).code == 2


async def test_completion_can_be_installed(tmp_path: Path) -> None:
    """The shell's completion script is there, and completes commands and runtimes."""
    # Typer looks which shell runs it; the tests may run in one that has no completion, such as sh.
    script = await program.sidecar(
        *("--show-completion", "bash"),
        home=tmp_path,
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    words = await program.sidecar(
        home=tmp_path,
        _OPENCODE_SIDECAR_COMPLETE="complete_bash",
        COMP_WORDS="opencode-sidecar models --runtime c",
        COMP_CWORD="3",
    )

    assert "complete" in script.out
    assert words.out.split() == ["cursor"]


def test_help_loads_neither_server_nor_client() -> None:
    """Building the command line imports no room behind it, so that it answers at once."""
    code = "import json, sys, sidecar.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=program.ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))

    assert not loaded & {"aiohttp", "pydantic", "structlog", "sqlite3", "sidecar.app"}
