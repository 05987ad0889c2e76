"""What this kernel's Landlock offers, and the program that uses it (`confine.c`).

Landlock (Linux 5.13 and later) lets a process without privileges give up access to files and to other
processes, for itself and all that it starts. The program is compiled where it is needed, unless the image
brought it along: a few hundred lines of C, because a launcher in Python would cost every command of an agent
20 ms and more.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_CREATE_RULESET = 444
_VERSION_FLAG = 1
_SOURCE = Path(__file__).with_name("confine.c")
_PREBUILT = Path(sys.prefix).parent / "confine"
"""Beside the virtual environment, where the image has it."""
_COMPILERS = ("cc", "gcc", "clang")
_COMPILE_SECONDS = 60.0
_PROBE_SECONDS = 10.0

FULL_ABI = 6
"""Linux 6.12: the first with all that is used."""


class LauncherError(Exception):
    """There is no launcher, or it does not work here; the text says why and what to do."""


def abi() -> int:
    """Return the version of the kernel's Landlock interface, 0 without one."""
    if sys.platform != "linux":
        return 0
    version = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(0, int(version))


def lacks(version: int) -> list[str]:
    """Return what cannot be held with that version, one sentence for each."""
    sentences = []
    if version < 2:
        sentences.append("files cannot be moved between directories (Linux 5.19 can)")
    if version < 3:
        sentences.append("a file outside can be emptied by its path (not since Linux 6.2)")
    if version < FULL_ABI:
        sentences.append(
            "an agent can send signals to opencode and to other sessions (not since Linux 6.12)"
        )
    return sentences


def install_launcher(target: Path) -> None:
    """Put the launcher at `target`, from beside this file or compiled. Blocks. Raises LauncherError."""
    stamp = target.with_suffix(".stamp")
    made_from = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()
    try:
        if target.exists() and stamp.exists() and stamp.read_text("ascii") == made_from:
            return
        draft = target.with_suffix(".new")  # the old one may be running
        if _PREBUILT.exists():
            shutil.copy(_PREBUILT, draft)
        else:
            _compile(draft)
        draft.chmod(0o755)
        draft.replace(target)
        stamp.write_text(made_from, "ascii")
    except OSError as error:
        raise LauncherError(f"the launcher cannot be put at {target}: {error}") from error


def probe(launcher: Path, rules: Path) -> None:
    """Check that the launcher may enter a domain here. Blocks. Raises LauncherError."""
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            [launcher, rules], capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LauncherError(f"{launcher} does not run: {error}") from error
    if done.returncode != 0:
        raise LauncherError(done.stderr.decode("utf-8", "replace").strip())


def _compile(target: Path) -> None:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise LauncherError("there is no C compiler to build the launcher: install gcc or clang")
    # Static where that is possible: it starts faster, and runs in a container with another libc.
    said = ""
    for options in (["-static"], []):
        command = [compiler, "-O2", *options, "-o", os.fspath(target), os.fspath(_SOURCE)]
        try:
            done = subprocess.run(  # noqa: S603  # a compiler of this machine
                command, capture_output=True, timeout=_COMPILE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LauncherError(f"{compiler} does not run: {error}") from error
        if done.returncode == 0:
            return
        said = done.stderr.decode("utf-8", "replace")[-500:]
    raise LauncherError(f"{compiler} cannot build the launcher: {said}")
