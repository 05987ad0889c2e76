"""Starts that cannot be: one sentence, exit code 2, no traceback, and nothing left running."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sidecar_process import all_gone, run


def in_the_way(path: Path) -> None:
    """Put a directory where a file is expected."""
    path.mkdir(parents=True)


def no_text(path: Path) -> None:
    """Put bytes where text is expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xfe\x00")


def pipe(path: Path) -> None:
    """Put a named pipe, which keeps a reader waiting until there is a writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def emptied(path: Path) -> None:
    """Put an empty database beside a key of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (path.parent / "secret.key").write_text("A" * 43 + "=")


async def refused(data_dir: Path, *says: str, **environment: str) -> None:
    """Start, and check how that ends."""
    code, output = await run("serve", **{"DATA_DIR": str(data_dir), "PORT": "0"} | environment)
    assert code == 2, output
    assert "Traceback" not in output
    sentences = [line for line in output.splitlines() if line.startswith("opencode-sidecar: ")]
    assert len(sentences) == 1, output
    for words in says:
        assert words in sentences[0]
    await all_gone(data_dir)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("lock", in_the_way),
        ("sidecar.db", in_the_way),
        ("secret.key", in_the_way),
        ("secret.key", no_text),
        ("opencode/opencode.json", in_the_way),
        ("sidecar.db", emptied),
        *((name, pipe) for name in ("lock", "sidecar.db", "secret.key", "opencode/opencode.json")),
    ],
)
async def test_something_is_in_the_way(tmp_path: Path, name: str, spoil: object) -> None:
    """A directory where a file is to be, bytes where text is: the sentence names the path."""
    assert callable(spoil)
    spoil(tmp_path / "data" / name)
    await refused(tmp_path / "data", str(tmp_path / "data" / name))


def script(text: str) -> Callable[[Path], None]:
    """Return what writes an executable file of that text."""

    def write(path: Path) -> None:
        path.write_text(text)
        path.chmod(0o755)

    return write


def not_executable(path: Path) -> None:
    """Put a program that may not be run, which holds for root as well."""
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)


def for_another_processor(path: Path) -> None:
    """Put the beginning of a program for the IBM S/390, 64 bits."""
    path.write_bytes(b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x02\x00\x16" + bytes(1000))
    path.chmod(0o755)


def link_to(target: str) -> Callable[[Path], None]:
    """Return what makes a link."""
    return lambda path: path.symlink_to(target)


NO_OPENCODE = {
    "gone": (lambda _path: None, "No such file"),
    "a directory": (in_the_way, "is no file"),
    "not executable": (not_executable, "is not an executable file"),
    "below a file": (lambda path: path.parent.touch(), "Not a directory"),
    "a link to nothing": (link_to("nowhere"), "is a link to nothing"),
    "a link to itself": (link_to("opencode"), "symbolic links"),
    "too long a name": (lambda _path: None, "File name too long"),
    "a line break in its name": (lambda _path: None, "holds a control character"),
    "a device": (link_to("/dev/null"), "is no file"),
    "empty": (script(""), "Exec format error"),
    "for another processor": (for_another_processor, "Exec format error"),
    "text": (script("touch this-was-run\n"), "Exec format error"),
    "without its interpreter": (script("#!/nowhere/node\n"), "No such file"),
    "true": (link_to("/bin/true"), "no opencode that runs here"),
    "cat": (link_to("/bin/cat"), "no opencode that runs here"),
    "silent": (script("#!/bin/sh\nexit 0\n"), "printed nothing"),
    "garbage": (script("#!/bin/sh\nprintf '\\377\\033[1m 1.2.3'\n"), "`--version` printed"),
    "without a library": (
        script("#!/bin/sh\necho 'libc.musl: not found' >&2; exit 127\n"),
        "exit code 127 (libc.musl: not found)",
    ),
    "an instruction it lacks": (script("#!/bin/sh\nkill -ILL $$\n"), "was ended by SIGILL"),
}
NAMES = {
    "below a file": "file/opencode",
    "too long a name": "o" * 300,
    "a line break in its name": "open\ncode",
}


@pytest.mark.parametrize("kind", NO_OPENCODE)
async def test_no_opencode_that_runs_here(tmp_path: Path, kind: str) -> None:
    """Known after one try, by the name of the setting: no row of crashes, and nothing is left running."""
    make, says = NO_OPENCODE[kind]
    path = tmp_path / NAMES.get(kind, "opencode")
    make(path)
    await refused(
        tmp_path / "data",
        "SIDECAR_CHILD_BINARY: ",
        says,
        "`make setup`",
        SIDECAR_CHILD_BINARY=str(path),
    )
    assert not list(tmp_path.rglob("this-was-run"))


@pytest.mark.parametrize(
    "setting", ["PORT", "SIDECAR_ADMIN_PORT", "SIDECAR_RELAY_PORT", "OPENCODE_PORT"]
)
async def test_a_port_is_taken(tmp_path: Path, setting: str) -> None:
    """The sentence names the port and its setting, also for the one of opencode."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        await refused(
            tmp_path / "data",
            f"{setting}: cannot listen on 127.0.0.1:{port}",
            f"set another {setting}",
            **{setting: port},
        )


@pytest.mark.parametrize(
    "host",
    ["192.0.2.1", "o" * 70, "h\udcff"],
    ids=["elsewhere", "a long label", "no text"],
)
@pytest.mark.parametrize("setting", ["HOST", "SIDECAR_ADMIN_HOST"])
async def test_a_host_that_is_not_this_machine(tmp_path: Path, setting: str, host: str) -> None:
    """The sentence names the host's setting: another port would not help."""
    await refused(
        tmp_path / "data",
        f"{setting}: cannot listen on ",
        "set it to an address of this machine",
        RUNTIME_API_KEY="key-of-the-tests-of-hosts",
        SIDECAR_ADMIN_KEY="key-of-the-tests-of-hosts",
        **{setting: host},
    )
