"""Replaces a file as a whole: a reader, and a crash, see the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

PRIVATE = 0o600
BY_UMASK = 0o666
"""As the process's umask says, like any other new file."""


def replace_file(
    file: Path, content: bytes, *, mode: int = PRIVATE, is_synced: bool = False
) -> None:
    """Write beside the file, then rename. Blocks. Raises OSError, and then the old file is unchanged.

    `is_synced`: the content has reached the disk before it replaces the old one, so a power failure leaves
    one of both.
    """
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            if is_synced:
                stream.flush()
                os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()  # nothing is there any more unless something failed
