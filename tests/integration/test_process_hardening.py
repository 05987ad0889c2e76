"""A process that closed itself cannot be read by another of the same user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import os, subprocess, sys
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if sys.argv[1] == "closed":
    import importlib.util
    spec = importlib.util.spec_from_file_location("process_hardening", sys.argv[2])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.close_to_same_user()
else:
    import ctypes
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # what exec gives every process
shell = ["sh", "-c", "cat /proc/$PPID/environ; echo; tr '\\\\0' '\\\\n' </proc/self/environ"]
sys.stdout.write(subprocess.run(shell, capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(("mode", "expected"), [("open", 2), ("closed", 1)])
def test_a_shell_reads_its_parent_only_while_that_is_open(mode: str, expected: int) -> None:
    """The shell below sees the parent's environment unless the parent closed itself; its own always."""
    source = (Path(__file__).parents[2] / "sidecar" / "process_hardening.py").read_text()
    readable = Path(f"/tmp/seclusion-{os.getpid()}.py")
    readable.write_text(source)  # another user cannot enter our directories
    try:
        output = subprocess.run(
            ["/usr/bin/env", "python3", "-c", _PROGRAM, mode, str(readable)],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "THE_KEY": "s3cret"},
            cwd="/tmp",
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    finally:
        readable.unlink()
    assert output.count("THE_KEY=s3cret") == expected
