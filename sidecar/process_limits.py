"""Limits that the system gives to this process."""

from __future__ import annotations

import contextlib
import resource

_MOST_DESCRIPTORS = 1 << 20
"""Enough for every bound here; some systems allow more than they can hold, or say so."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; return the soft limit.

    The soft one, 1024 nearly everywhere, is for programs that use select(). opencode raises its own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
