"""The catalogue's last good copy on disk: what the sources said, so that changed settings still apply."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

_VERSION = 1

_log = structlog.get_logger(__name__)

Facts = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Source name -> model id -> field -> value."""


@dataclass(frozen=True, slots=True)
class SavedCatalogue:
    """A copy read from disk; `fetched_at` is seconds since the epoch."""

    fetched_at: float
    facts: dict[str, dict[str, dict[str, Any]]]


def load(file: Path, *, gateway_url: str) -> SavedCatalogue | None:
    """Return the saved copy, None when there is none for this gateway or it cannot be read."""
    try:
        value = json.loads(file.read_bytes())
        if value["version"] != _VERSION or value["gateway"] != _fingerprint(gateway_url):
            return None
        facts = {
            str(source): {str(model): dict(said) for model, said in by_id.items()}
            for source, by_id in value["facts"].items()
        }
        return SavedCatalogue(float(value["fetched_at"]), facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("saved catalogue unreadable, ignored", file=str(file), error=str(error))
        return None


def save(file: Path, *, gateway_url: str, fetched_at: float, facts: Facts) -> None:
    """Replace the copy atomically, readable by its owner only. Blocking; raises OSError."""
    value = {
        "version": _VERSION,
        "gateway": _fingerprint(gateway_url),
        "fetched_at": fetched_at,
        "facts": facts,
    }
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # made with 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(value, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _fingerprint(gateway_url: str) -> str:
    """Tell gateways apart without writing a URL that may hold a password."""
    return hashlib.sha256(gateway_url.encode()).hexdigest()[:16]
