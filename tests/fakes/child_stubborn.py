"""A healthy child that ignores SIGTERM and leaves a process in a session of its own, as bash tools do."""

import signal
import subprocess
import sys
from pathlib import Path

from child_healthy import serve

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path("left.pid").write_text(str(left.pid))
    serve(sys.argv)
