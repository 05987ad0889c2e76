"""A healthy child that answers its health check only when it is to end; the file `asked` shows the check."""

import os
import signal
import sys
import threading
from pathlib import Path

from child_healthy import Handler, serve

IS_TO_END = threading.Event()


class ThoughtfulHandler(Handler):
    """One request."""

    def do_GET(self) -> None:
        """Think until the end."""
        if self.path == "/global/health":
            Path("asked").touch()
            IS_TO_END.wait()
            super().do_GET()
            self.wfile.flush()
            os._exit(0)
        super().do_GET()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: IS_TO_END.set())
    serve(sys.argv, ThoughtfulHandler)
