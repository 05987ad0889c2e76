"""The shortest way to a server that answers: what `serve` does before it is loaded.

Nearly all of a start is importing, so what is not needed is kept out here, in one place.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from sidecar.stop_signals import stop_signals


def leave_on_signals() -> None:
    """End at once and with 0 on a signal that stops the server, until the loop has its own handlers."""
    for number in stop_signals():
        signal.signal(number, _leave)


def main() -> int:
    """Load the server and run it; return the process's exit code."""
    leave_on_signals()
    # Modules stay loaded: looking for garbage among them is a tenth of the start, and later a pause
    # in every full collection. `serve` enables it when all is loaded.
    gc.disable()
    # structlog imports rich at once, another tenth, to draw tracebacks that sidecar.logs writes itself.
    with _hidden("rich"):
        import structlog  # noqa: F401, PLC0415
    from sidecar import serve  # noqa: PLC0415  # after the lines above

    return serve.main()


def _leave(_number: int, _frame: object) -> NoReturn:
    """End a start that is no longer wanted: nothing is open yet.

    An exception instead could get lost inside an import.
    """
    os._exit(0)


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of `package` fail meanwhile, as if it were not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # the documented way to forbid an import
    try:
        yield
    finally:
        del sys.modules[package]
