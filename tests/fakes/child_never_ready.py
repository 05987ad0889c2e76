"""A child that starts, ignores SIGTERM, and never listens."""

import signal
import threading

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("started", flush=True)
    threading.Event().wait()
