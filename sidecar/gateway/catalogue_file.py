"""The catalogue's last good copy on disk: what the sources said, so that changed settings still apply."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sidecar.gateway.rules import within_bounds
from sidecar.store import disk_cache

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
    kept = disk_cache.load(file, fingerprint=_fingerprint(gateway_url))
    if kept is None:
        return None
    try:
        facts = {
            str(source): {str(model): within_bounds(said) for model, said in by_id.items()}
            for source, by_id in kept.content.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        _log.warning("saved catalogue unreadable, ignored", file=str(file), error=str(error))
        return None
    return SavedCatalogue(kept.fetched_at, facts)


def save(file: Path, *, gateway_url: str, fetched_at: float, facts: Facts) -> None:
    """Replace the copy atomically, readable by its owner only. Blocking; raises OSError."""
    fingerprint = _fingerprint(gateway_url)
    disk_cache.save(file, fingerprint=fingerprint, fetched_at=fetched_at, content=facts)


def _fingerprint(gateway_url: str) -> str:
    """Identify the gateway without writing a URL that may hold a password."""
    return hashlib.sha256(gateway_url.encode()).hexdigest()[:16]
