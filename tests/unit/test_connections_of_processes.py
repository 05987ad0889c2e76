"""Which process has the other end of a connection: by the kernel's tables, and refused if they do not say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidecar.processes.connections import is_from_below, may_be_held_below
from tests.waiting import PATIENCE_SECONDS

_PROGRAM = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sys.stdin.read()
"""


@contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("is_detached", [False, True])
def test_a_process_below_is_found(host: str, is_detached: bool) -> None:
    """Its connection is one from below this process, in a session of its own, too; not below itself."""
    with listening(host) as server:
        port = server.getsockname()[1]
        client = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, host, str(port)],
            stdin=subprocess.PIPE,
            start_new_session=is_detached,
        )
        try:
            server.settimeout(PATIENCE_SECONDS)
            connection, theirs = server.accept()
            with connection:
                ours = connection.getsockname()[:2]
                assert is_from_below(ours, theirs[:2], root=os.getpid())
                assert not is_from_below(ours, theirs[:2], root=client.pid)
        finally:
            client.communicate(b"")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_own_connection_is_not_from_below(host: str) -> None:
    """A process is not below itself. The owner of a closed end is unknown, and counts as below."""
    with listening(host) as server:
        client = socket.create_connection((host, server.getsockname()[1]))
        connection, theirs = server.accept()
        with connection:
            ours = connection.getsockname()[:2]
            assert not is_from_below(ours, theirs[:2], root=os.getpid())
            client.close()
            assert is_from_below(ours, theirs[:2], root=os.getpid())


@pytest.mark.parametrize(
    ("held", "hidden", "expected"),
    [
        ({30}, set(), True),  # a grandchild
        ({10}, set(), False),  # the root itself
        ({99}, set(), False),  # another program
        (set(), set(), False),  # of another namespace
        (set(), {30}, True),  # hides its files, and no other process has the socket
        ({99}, {30}, False),  # hides its files, but another program has the socket
        ({99}, {98}, False),  # another program hides its files
        ({30, 99}, set(), True),  # shared with another program
    ],
)
def test_a_process_that_hides_its_files_counts(
    held: set[int], hidden: set[int], expected: bool
) -> None:
    """Unless another process, which is not below, holds the socket."""
    parents = {1: 0, 10: 1, 20: 10, 30: 20, 98: 1, 99: 1}

    def holds(pid: int, _file: str) -> bool | None:
        return None if pid in hidden else pid in held

    assert may_be_held_below("socket:[1]", 10, parents, holds) is expected
