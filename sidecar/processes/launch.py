"""Become the child, but never outlive the sidecar: `python -I -S launch.py <parent pid> command...`.

Run as a program, not imported. The parent-death signal has to be set inside the new process. Doing
it in a `preexec_fn` would run Python between fork and exec of a process with threads (the store has
some), which can deadlock; `setpriv --pdeathsig` is not in slim images. This costs about 20 ms once
per boot. The signal survives exec, but not a set-uid executable, which opencode is not.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Arm the signal, check that the parent did not die meanwhile, and exec the command."""
    parent_pid, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent_pid):
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # the point of this file


if __name__ == "__main__":
    main(sys.argv[1:])
