"""Own a command and everything below it: `python -I -S launch.py PARENT_PID REPORT_FD COMMAND...`.

Run as a program, not imported: it stays between us and the command as the command's guard. The guard is a
subreaper, so whatever is orphaned below the command becomes its child, whichever session, name or
environment that has taken; and it ends all of them when the command ends, at SIGQUIT, and when we die. A
parent-death signal has to be set inside the new process; in a `preexec_fn` Python would run between fork and
exec of a process with threads, which can deadlock.

Writes the command's process id to REPORT_FD and closes it. Passes SIGTERM on. Ends as the command did.
Costs 20 ms and 8 MB per command. Without Linux it becomes the command at once.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_MAX_ROUNDS = 500
"""Killing races with forking, so it is repeated until nothing is left; a fork bomb ends it here."""
_ROUND_PAUSE_SECONDS = 0.005
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT}


def main(arguments: list[str]) -> None:
    """Start the command, guard it, end as it did."""
    parent, report, *command = arguments
    if sys.platform != "linux":
        os.write(int(report), str(os.getpid()).encode())
        os.close(int(report))
        os.execv(command[0], command)  # noqa: S606  # the point of this file
    libc = ctypes.CDLL(None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != int(parent):
        sys.exit(1)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(int(report))
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before that was set
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:
            sys.exit(f"cannot run {command[0]}: {error.strerror}")
    libc.prctl(_PR_SET_DUMPABLE, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    try:
        os.write(int(report), str(child).encode())
    except BrokenPipeError:  # the start was given up: there is no owner
        _kill(child, signal.SIGKILL)
    os.close(int(report))
    status = _guard(child, int(parent))
    _end_all()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _guard(child: int, parent: int) -> int:
    """Wait for the end of the command; return its wait status."""
    while True:
        number = signal.sigwaitinfo(_SIGNALS).si_signo
        if number == signal.SIGTERM and os.getppid() == parent:
            _kill(child, signal.SIGTERM)
        elif number != signal.SIGCHLD:
            _kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while (gone := os.waitpid(-1, os.WNOHANG))[0]:
                if gone[0] == child:
                    return gone[1]


def _end_all() -> None:
    for _ in range(_MAX_ROUNDS):
        below = _below(os.getpid())
        for pid in below:
            _kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not below:
            return
        time.sleep(_ROUND_PAUSE_SECONDS)


def _below(root: int) -> list[int]:
    """Return the live processes below that one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # starts without pathlib are faster
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":  # the name before it may hold anything
            children.setdefault(int(fields[1]), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


if __name__ == "__main__":
    main(sys.argv[1:])
