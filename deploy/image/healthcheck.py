"""Is the sidecar in this container well? `healthcheck.py [PATH]`, by default `/readyz`.

For engines that can only run a command, and for pods in which the sidecar listens on loopback, where
the kubelet's own HTTP probes cannot reach it. Standard library only, and no site packages
(`python -I -S`): it runs every few seconds.
"""

import ctypes
import http.client
import os
import sys

_PR_SET_DUMPABLE = 4
_TIMEOUT_SECONDS = 4
_ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  # compared, not bound


def close_to_same_user() -> None:
    """Close this process, whose environment has the sidecar's keys, to others of its user (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main(path: str = "/readyz") -> int:
    """Return 0 for a status below 400; otherwise print the reason and return 1."""
    host = os.environ.get("HOST", "")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in _ANY_ADDRESS else host,
        int(os.environ.get("PORT") or 8080),
        timeout=_TIMEOUT_SECONDS,
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace")
    except OSError as error:
        print(f"{path}: {error}")  # noqa: T201  # what `docker inspect` and `kubectl describe` show
        return 1
    print(f"{path}: {response.status} {body}")  # noqa: T201
    return int(response.status >= 400)


if __name__ == "__main__":
    close_to_same_user()
    sys.exit(main(*sys.argv[1:]))
