"""A child that answers one health check and then, with `BUSY` in its directory, none: it works all the time.

With `HUNG` there it stops to answer and does nothing; without either it answers again.
"""

import sys
import time
from pathlib import Path

from child_healthy import Handler, serve


class Busy(Handler):
    """Looks for the files at each request."""

    def do_GET(self) -> None:
        """Answer when there is neither file."""
        while Path("HUNG").exists():
            time.sleep(0.2)
        while Path("BUSY").exists():
            sum(range(20_000))
        super().do_GET()


if __name__ == "__main__":
    serve(sys.argv, Busy)
