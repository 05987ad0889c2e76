"""The start: `serve` loads only what it needs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("typer", "rich.console", "opentelemetry", "sidecar.cli", "sidecar.sdk")
"""typer and rich are 25 and 50 ms of a start of half a second."""


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
    assert [name for name in NOT_NEEDED if name in loaded] == []


def test_serve_through_the_command_line_is_the_same_server() -> None:
    """`serve` with anything more is parsed as every command is."""
    loaded = loaded_by("serve", "--")
    assert {"sidecar.app", "typer"} <= loaded


@pytest.mark.parametrize(
    "module", ["ctypes", "structlog"]
)  # the first that is loaded, and a later one
@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_modules_are_loaded_ends_the_start(
    tmp_path: Path, number: signal.Signals, module: str
) -> None:
    """Exit code 0, at once and without a word, and nothing was made."""
    data_dir = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "sidecar", "serve"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATA_DIR": str(data_dir)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(number)
                break
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0
    assert not data_dir.exists()
