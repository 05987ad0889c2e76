"""Ports for programs that need a fixed one: where they are to be found again after a restart."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000


def free_port() -> int:
    """Return a port of loopback that nothing listens on.

    From below the range out of which the kernel serves outgoing connections and listeners on port 0, so that
    none of those takes it before the program listens.
    """
    end = int(_RANGE.read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(_FIRST, end)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
