"""The start: `serve` loads only what it needs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("typer", "rich.console", "opentelemetry", "sidecar.cli", "sidecar.sdk")
"""typer and rich are 25 and 50 ms of a start of half a second."""
BEHIND_THE_FACE = ("sidecar.wiring.rest", "sidecar.wiring.domain", "psutil", "cryptography")
"""What is loaded while the face answers: a quarter of the start."""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that `python -m sidecar` has imported when it refuses a setting."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sidecar", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SIDECAR_NO_SUCH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown setting SIDECAR_NO_SUCH" in done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_serve_loads_no_command_line_and_nothing_optional() -> None:
    """No parser of options, no drawing of tracebacks, no tracing, none of the SDK."""
    loaded = loaded_by("serve")
    assert "sidecar.app" in loaded
    assert [name for name in NOT_NEEDED + BEHIND_THE_FACE if name in loaded] == []


def test_serve_through_the_command_line_is_the_same_server() -> None:
    """`serve` with anything more is parsed as every command is."""
    loaded = loaded_by("serve", "--")
    assert {"sidecar.app", "typer"} <= loaded
