"""A small JSON document that outlives the process: replaced atomically, readable by its owner only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sidecar.atomic_file import replace_file

_VERSION = 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CachedDocument:
    """What was kept, and when it was fetched (seconds since the epoch)."""

    fetched_at: float
    content: Any


def load(file: Path, *, fingerprint: str) -> CachedDocument | None:
    """Return what was kept under that fingerprint, None when there is nothing or it is unreadable."""
    try:
        value = json.loads(file.read_bytes())
        if value["version"] != _VERSION or value["fingerprint"] != fingerprint:
            return None
        return CachedDocument(float(value["fetched_at"]), value["content"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("kept file unreadable, ignored", file=str(file), error=str(error))
        return None


def save(file: Path, *, fingerprint: str, fetched_at: float, content: Any) -> None:
    """Replace the file. Blocking; raises OSError, and then the old one is still there."""
    value = {
        "version": _VERSION,
        "fingerprint": fingerprint,
        "fetched_at": fetched_at,
        "content": content,
    }
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(file, json.dumps(value, separators=(",", ":")).encode(), is_synced=True)
