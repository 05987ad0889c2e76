"""A signal at each stage of a start: exit code 0, no traceback, nothing left running.

The stages in which modules are loaded are in `tests/unit/test_start.py`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from sidecar.store.sqlite import SqliteStore
from tests.fakes.small_sidecar import fake_child
from tests.sidecar_process import SidecarProcess, all_gone, serving
from tests.waiting import until

Reached = Callable[[SidecarProcess], Awaitable[object]]
"""Waits until the sidecar is at the stage."""
Stage = Callable[[Path], AbstractAsyncContextManager[tuple[dict[str, str], Reached]]]
"""Prepares a start in a directory; yields the variables that it needs beside the usual ones."""


@asynccontextmanager
async def storage(root: Path) -> AsyncIterator[tuple[dict[str, str], Reached]]:
    """The database is locked by another program, and waited for."""
    file = root / "data" / "sidecar.db"
    store = SqliteStore(file)
    await store.open()
    await store.close()

    def is_open(sidecar: SidecarProcess) -> bool:
        try:
            links = [
                entry.readlink() for entry in Path(f"/proc/{sidecar.process.pid}/fd").iterdir()
            ]
        except OSError:  # one was closed meanwhile
            return False
        return file in links

    async def reached(sidecar: SidecarProcess) -> None:
        await until(lambda: is_open(sidecar))

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield {}, reached


@asynccontextmanager
async def walls(root: Path) -> AsyncIterator[tuple[dict[str, str], Reached]]:
    """The launcher of the walls is compiled; the compiler ends when the signal has been sent."""
    begun, go_on = root / "begun", root / "go-on"
    compiler = root / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(
        f"#!/bin/sh\ntouch {begun}\nwhile ! [ -e {go_on} ]; do sleep 0.05; done\nexit 1\n"
    )
    compiler.chmod(0o755)

    async def reached(_sidecar: SidecarProcess) -> None:
        await until(begun.exists)
        go_on.touch()  # it looks again after the signal, or just before: both have to hold

    yield (
        {"PATH": f"{compiler.parent}:{os.environ['PATH']}", "SIDECAR_CONFINEMENT": "auto"},
        reached,
    )


def child(program: str, event: str) -> Stage:
    """Return the stage in which such a child has led to that log entry."""

    @asynccontextmanager
    async def stage(root: Path) -> AsyncIterator[tuple[dict[str, str], Reached]]:
        binary = fake_child(root, program)
        yield {"SIDECAR_CHILD_BINARY": str(binary)}, lambda sidecar: sidecar.logged(event)

    return stage


@asynccontextmanager
async def version(root: Path) -> AsyncIterator[tuple[dict[str, str], Reached]]:
    """The first start failed, and the executable is asked for its version, which it never prints."""
    asked, binary = root / "asked", root / "opencode"
    binary.write_text(f'#!/bin/sh\n[ "$1" = --version ] || exit 1\ntouch {asked}\nexec sleep 600\n')
    binary.chmod(0o755)
    yield {"SIDECAR_CHILD_BINARY": str(binary)}, lambda _sidecar: until(asked.exists)


STAGES: dict[str, Stage] = {
    "storage": storage,
    "walls": walls,
    "served": child("child_never_ready.py", "serving"),
    "opencode starts": child("child_never_ready.py", "child started"),
    "its version": version,
    "backing off": child("child_crasher.py", "child ended, backing off"),
    "ready": child("child_healthy.py", "child ready"),
}
TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        *((stage, TERM) for stage in STAGES),
        *((stage, number) for stage in ("opencode starts", "ready") for number in (INT, HUP)),
    ],
)
async def test_a_signal_while_it_starts(tmp_path: Path, stage: str, number: signal.Signals) -> None:
    """Whatever the start waits for, it is over: with 0, without a traceback, without a process left."""
    data_dir = tmp_path / "data"
    async with STAGES[stage](tmp_path) as (more, reached):
        environment = {
            "DATA_DIR": str(data_dir),
            "PORT": "0",
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_CHILD_DRAIN_SECONDS": "0.5",
            "SIDECAR_CONFINEMENT": "off",  # the fakes are programs of the tests
        }
        async with serving(**environment | more) as sidecar:
            await reached(sidecar)
            sidecar.send(number)
            assert await sidecar.ended() == 0, sidecar.output
    assert "Traceback" not in sidecar.output
    assert "opencode-sidecar: " not in sidecar.output
    await all_gone(data_dir)
