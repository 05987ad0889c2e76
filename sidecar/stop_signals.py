"""The signals that stop the server, from its first statement on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def stop_signals() -> list[signal.Signals]:
    """Return SIGTERM, SIGINT, and SIGHUP where it is not ignored, as it is under `nohup`."""
    is_hang_up_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if is_hang_up_ignored else [signal.SIGHUP])]


def without_terminal(then: Callable[[], None]) -> Callable[[], None]:
    """Return what to do at SIGHUP: give up the terminal, to which nothing can be written now, and `then`."""
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def hang_up() -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in terminals:
            os.dup2(null, descriptor)
        os.close(null)
        then()

    return hang_up
