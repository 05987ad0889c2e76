"""Space on the store's disk that is kept for the moment when a session has taken all the rest."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


class Reserve:
    """A file in the data directory that holds space by being there. Everything here blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_held(self) -> bool:
        """Whether the space is kept."""
        return self._path.exists()

    def hold(self, size_bytes: int) -> None:
        """Take the space, which stays with the file over restarts. Nothing happens where that fails."""
        if sys.platform != "linux" or size_bytes <= 0:
            return
        draft = self._path.with_suffix(".new")
        try:
            with draft.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the space to the store. Raises OSError."""
        self._path.unlink(missing_ok=True)
