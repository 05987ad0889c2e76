"""The shortest way to a server that answers: what `serve` does before it is loaded.

Nearly all of a start is importing, so what is not needed is kept out here, in one place.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator


def main() -> int:
    """Load the server and run it; return the process's exit code."""
    # Modules stay for ever: looking for garbage among them is a tenth of the start, and later a pause
    # in every full collection. `serve` enables it when all is loaded.
    gc.disable()
    # structlog imports rich at once, another tenth, to draw tracebacks that sidecar.logs writes itself.
    with _hidden("rich"):
        import structlog  # noqa: F401, PLC0415
    from sidecar import serve  # noqa: PLC0415  # after the lines above

    return serve.main()


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
