"""Whose end of a TCP connection it is: the kernel's tables say which process holds a socket.

Linux: `/proc/net/tcp` and `tcp6` (proc(5)) give a socket's inode and user, `/proc/<pid>/fd` who holds it.
Everything here blocks; call it in a thread. Without /proc nothing is found.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TABLES = ("net/tcp", "net/tcp6")

Address = tuple[str, int]
"""IP address and port."""
Holds = Callable[[int, str], bool | None]
"""Whether a process holds the file of that name; None when we may not look."""


def is_from_below(ours: Address, theirs: Address, *, root: int) -> bool:
    """Whether the other end of our connection may be held by a process below `root`.

    `ours` and `theirs` are both ends as our socket sees them. True also when unknown: the other end is
    closed already, or a process below `root` hides its files and no other process holds the socket.
    """
    if not (_PROC / "net" / "tcp").exists():
        return False
    found = _find(_tables(), theirs, ours)
    if found is None:
        return ipaddress.ip_address(theirs[0]).is_loopback  # closed, or of another machine
    inode, user = found
    if user != os.geteuid():
        return False
    return may_be_held_below(f"socket:[{inode}]", root, _parents(), _holds)


def may_be_held_below(file: str, root: int, parents: Mapping[int, int], holds: Holds) -> bool:
    """Decide by the processes' parents. A process that hides its files counts unless another holds this."""
    below = {pid for pid in parents if _is_below(pid, root, parents)}
    is_hidden = False
    for pid in below:
        answer = holds(pid, file)
        if answer:
            return True
        is_hidden = is_hidden or answer is None
    return is_hidden and not any(holds(pid, file) for pid in parents.keys() - below)


def _is_below(pid: int, root: int, parents: Mapping[int, int]) -> bool:
    seen: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in seen:
        if pid == root:
            return True
        seen.add(pid)
    return False


def _tables() -> Iterator[str]:
    for name in _TABLES:
        try:
            yield from (_PROC / name).read_text().splitlines()[1:]
        except OSError:
            continue


def _find(rows: Iterable[str], local: Address, remote: Address) -> tuple[int, int] | None:
    """Return inode and user of the socket with these ends."""
    wanted = {(_plain(local), _plain(remote))}
    for row in rows:
        fields = row.split()
        if (_read(fields[1]), _read(fields[2])) in wanted and fields[9] != "0":
            return int(fields[9]), int(fields[7])
    return None


def _plain(address: Address) -> tuple[str, int]:
    """Return the address without a scope, and IPv4 that came by IPv6 as what it is."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip), address[1]


def _read(field: str) -> tuple[str, int]:
    """Read `0100007F:1F90`: words of 32 bits in the machine's order, then the port."""
    raw, _, port = field.partition(":")
    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
    return _plain((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))


def _parents() -> dict[int, int]:
    parents = {}
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            try:
                stat = (_PROC / entry.name / "stat").read_bytes()
            except OSError:
                continue
            # The name before the last bracket may hold anything.
            parents[int(entry.name)] = int(stat.rpartition(b") ")[2].split()[1])
    return parents


def _holds(pid: int, file: str) -> bool | None:
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(entry.readlink()) == file:
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended
    except PermissionError:
        return None
    return False
