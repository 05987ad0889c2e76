"""Which data directory this is, across restarts and pods: a random name in a file of its own."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from sidecar.atomic_file import replace_file

_NAME = "identity"
_KERNEL = Path("/proc/sys/kernel/random/boot_id")


def identity_of(data_dir: Path) -> str:
    """Return the directory's name, made at the first call. Raises OSError. Needs the directory's lock."""
    file = data_dir / _NAME
    with contextlib.suppress(FileNotFoundError):
        if name := file.read_text(encoding="ascii").strip():
            return name
    name = secrets.token_hex(8)
    replace_file(file, f"{name}\n".encode())
    return name


def incarnation_of(data_dir: Path) -> str:
    """Return a name of this directory on this running kernel. Raises OSError.

    Who holds the directory's lock knows that an earlier process with the same name is dead. The
    directory alone would not do: a volume can be attached elsewhere while a cut-off node still runs.
    """
    try:
        kernel = _KERNEL.read_text(encoding="ascii").strip()
    except OSError:  # not Linux: nothing is known of earlier processes, and their leases run out
        kernel = secrets.token_hex(8)
    return f"{kernel}/{identity_of(data_dir)}"
