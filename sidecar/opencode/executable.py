"""opencode's executable: which one it is, and whether it is an opencode that runs here."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from sidecar.errors import ChildError, SettingsError
from sidecar.processes.process import ChildProcess, Stream

VERSION_SECONDS = 30.0
"""opencode is 180 MB; the first start after an install reads all of it from disk."""
_PROJECT_ROOT = Path(__file__).resolve().parents[2]
_MODULES = Path("deploy", "opencode", "node_modules")
_STUB_BYTES = 1_000_000
"""A real build has 180 MB."""
_VERSION = re.compile(r"\d+\.\d+\.\d+\S*|local")
"""What opencode prints, alone on a line: a release, or `local` where it was built from its sources."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FIX = "name an opencode for this machine, or leave SIDECAR_CHILD_BINARY unset and run `make setup`"
_MOST_LINES = 20
_MOST_CHARACTERS = 200


def find_binary(
    explicit: Path | None, *, search_path: str | None, project_root: Path = _PROJECT_ROOT
) -> Path:
    """Return the opencode executable: the named one, else the pinned one, else that on `search_path`.

    npm's post-install step puts the build that suits this CPU and libc behind `.bin`; where scripts were
    switched off, a stub is there and the platform package is taken directly.
    Raises SettingsError that says what to run.
    """
    if explicit is not None:
        if (problem := _problem_of(explicit)) is not None:
            raise SettingsError(f"SIDECAR_CHILD_BINARY: {_shown(explicit)} {problem}; {_FIX}")
        return explicit.absolute()
    modules = project_root / _MODULES
    linked = modules / ".bin" / "opencode"
    if _problem_of(linked) is None and linked.stat().st_size > _STUB_BYTES:
        return linked.resolve()
    packaged = modules / f"opencode-{_os_name()}-{_architecture()}" / "bin" / "opencode"
    if _problem_of(packaged) is None:
        return packaged
    if found := shutil.which("opencode", path=search_path):
        return Path(found).absolute()
    raise SettingsError(
        "opencode is not installed: run `make setup` (or `npm ci` in deploy/opencode), "
        "or name an executable with SIDECAR_CHILD_BINARY"
    )


async def ask_version(
    binary: Path, *, confining: Sequence[str] = (), env: Mapping[str, str], cwd: Path
) -> str:
    """Return what `opencode --version` prints; takes opencode more than a second of processor time.

    `confining` goes before its command line (`confinement`). Raises SettingsError when the program cannot be
    run here or is no opencode, and ChildError when that cannot be known: it was killed, or took too long.
    """
    lines: dict[Stream, deque[str]] = {
        "stdout": deque(maxlen=_MOST_LINES),
        "stderr": deque(maxlen=_MOST_LINES),
    }
    try:
        process = await ChildProcess.spawn(
            [*confining, str(binary), "--version"],
            env=env,
            cwd=cwd,
            on_line=lambda stream, text: lines[stream].append(text),
        )
    except OSError as error:
        raise ChildError(f"no process can be started: {error}") from error
    try:
        async with asyncio.timeout(VERSION_SECONDS):
            code = await process.wait()
    except TimeoutError as error:
        raise ChildError(f"{binary} does not print its version in time") from error
    finally:
        process.kill()
        await process.wait()
    if code == -signal.SIGKILL:
        raise ChildError(f"{binary} was killed when it was to print its version")
    printed = "\n".join(lines["stdout"])
    if code == 0 and _VERSION.fullmatch(printed):
        return printed
    raise SettingsError(
        f"SIDECAR_CHILD_BINARY: {_shown(binary)} is no opencode that runs here: `--version` "
        f"{_what_happened(code, printed, last_words=next(reversed(lines['stderr']), ''))}; {_FIX}"
    )


def _what_happened(code: int, printed: str, *, last_words: str) -> str:
    if code < 0:
        what = f"was ended by {signal.Signals(-code).name}"
    elif code > 0:
        what = f"ended with exit code {code}"
    else:
        what = f"printed {printed[:_MOST_CHARACTERS]!r}" if printed else "printed nothing"
    return f"{what} ({last_words[:_MOST_CHARACTERS]})" if last_words else what


def _problem_of(path: Path) -> str | None:
    """Return why that is no executable file, None when it is one."""
    if _CONTROL.search(str(path)):
        return "holds a control character"
    try:
        path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            return "is a link to nothing"
        return f"cannot be used: {error.strerror}"
    if not path.is_file():
        return "is no file"
    return None if os.access(path, os.X_OK) else "is not an executable file (`chmod +x`)"


def _shown(path: Path) -> str:
    return ascii(str(path)) if _CONTROL.search(str(path)) else str(path)


def _os_name() -> str:
    return {"win32": "windows"}.get(sys.platform, sys.platform)


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(machine, machine)
