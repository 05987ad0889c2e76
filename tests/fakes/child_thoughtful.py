"""A healthy child that takes a second to answer whether it is; the file `asked` tells that it was asked."""

import sys
import time
from pathlib import Path

from child_healthy import Handler, serve


class ThoughtfulHandler(Handler):
    """One request."""

    def do_GET(self) -> None:
        """Think first."""
        if self.path == "/global/health":
            Path("asked").touch()
            time.sleep(1.0)
        super().do_GET()


if __name__ == "__main__":
    serve(sys.argv, ThoughtfulHandler)
