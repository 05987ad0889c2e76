"""The domain lists of an agent's `web_fetch` and `web_search`. Pure.

An entry means its host and every subdomain of it; for searches it may have a path behind it, which then
begins the paths that are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarl import URL


@dataclass(frozen=True, slots=True)
class DomainRules:
    """At most one of the lists is set; an empty one limits nothing."""

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> DomainRules:
        """Read them from a tool's options, as in the agent."""
        return cls(_entries(options, "allowed_domains"), _entries(options, "blocked_domains"))

    def permits(self, url: URL) -> bool:
        """Return whether the URL may be fetched, or shown."""
        if self.allowed:
            return any(_covers(entry, url) for entry in self.allowed)
        return not any(_covers(entry, url) for entry in self.blocked)


def _entries(options: Mapping[str, Any], field: str) -> tuple[str, ...]:
    given: Sequence[str] = options.get(field) or ()
    return tuple(given)


def _covers(entry: str, url: URL) -> bool:
    domain, _, path = entry.partition("/")
    domain, host = _ascii(domain), _ascii(url.host or "")
    if not host or not (host == domain or host.endswith(f".{domain}")):
        return False
    wanted = "/" + path.rstrip("/")
    return wanted in {"/", url.path} or url.path.startswith(f"{wanted}/")


def _ascii(host: str) -> str:
    """Return the host as DNS knows it: in lower case, without the root's dot, in ASCII."""
    host = host.lower().rstrip(".")
    try:
        return URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        return host
