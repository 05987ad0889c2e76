"""Keep our own memory and environment from the agents, which run as the same user.

Linux lets a user read `/proc/<pid>/environ` and `/proc/<pid>/mem` of all their processes: an agent's
shell could take the gateway's key and the vault key from the sidecar. A process that declares itself
not dumpable is closed to all but root. The child becomes readable again with its exec.
"""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def close_to_same_user() -> bool:
    """Close this process to others of its user; return whether that worked (on Linux)."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
