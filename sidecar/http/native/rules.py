"""Which of opencode's routes are served, and how. Pure.

Wire format: `GET /doc` of opencode 1.18.33. A route that the child declares is forwarded unless it stands
here. Refused is what answers keys, reaches beyond one session, or opens the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.errors import NotFoundError, PermissionDeniedError

READS = frozenset({"GET", "HEAD"})

_SEGMENT = re.compile(r"[A-Za-z0-9_.:@-]{1,256}")
"""What a part of a path may consist of. opencode's ids need no more, and it decodes and re-splits what
is percent-encoded: an encoded slash, backslash or NUL would not be the path that was checked here."""

_HIDDEN = re.compile(
    r"""
      (/global)?/config(/|$) | /provider(/|$) # answer resolved keys, the relay's token among them
    | /auth(/|$)                              # keys of providers
    | /pty(/|$) | /experimental/ | /api/      # terminals; unstable interfaces
    | /tui(/|$) | /sync(/|$) | /log$
    """,
    re.VERBOSE,
)
_SHOWN = re.compile(r"/experimental/(capabilities|console|resource|workspace|workspace/status)$")
"""Reads that opencode's own clients need at their start; they tell nothing of other sessions."""

_HIDDEN_WRITES = re.compile(r"/global/|/instance/|/mcp(/|$)|/project(/|$)")
"""Writes that reach beyond one session: they abort turns or change what others get."""

_FAMILIES = frozenset(
    {
        *(
            "agent",
            "api",
            "auth",
            "command",
            "config",
            "doc",
            "event",
            "experimental",
            "file",
            "find",
        ),
        *("formatter", "global", "instance", "log", "lsp", "mcp", "path", "permission", "project"),
        *("provider", "pty", "question", "session", "skill", "sync", "tui", "vcs"),
    }
)
"""First parts of all routes of opencode 1.18.33. Any other path is none of its, child or no child."""

_SHARING = re.compile(r"/session/[^/]+/share$")

_PROMPT = re.compile(
    r"/session/[^/]+/(message|prompt_async|command|summarize|shell|init)$",
)
_SESSION = re.compile(r"/session/(ses_[A-Za-z0-9]+)(?:/(\w+))?(?:/|$)")


def check_shape(path: str) -> None:
    """Raise NotFoundError for a path that cannot be one of opencode's routes."""
    segments = path.split("/")[1:]
    is_plain = all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in segments)
    if not is_plain or segments[0] not in _FAMILIES:
        raise NotFoundError(f"no such route: {path[:200]}")


def check_allowed(method: str, path: str) -> None:
    """Raise PermissionDeniedError, with the reason, for what is never forwarded."""
    if _SHARING.match(path) and method not in READS:
        raise PermissionDeniedError(
            f"{method} {path}: sharing is switched off; it would publish the conversation on a server "
            "outside"
        )
    is_write = method not in READS
    is_hidden = _HIDDEN.match(path) is not None and not (_SHOWN.match(path) and not is_write)
    if is_hidden or (is_write and _HIDDEN_WRITES.match(path)):
        raise PermissionDeniedError(
            f"{method} {path}: this part of opencode's API is not forwarded; it would expose keys "
            "or disturb other sessions"
        )


def is_prompt(method: str, path: str) -> bool:
    """Whether the request begins a turn."""
    return method == "POST" and _PROMPT.match(path) is not None


def session_in(path: str) -> tuple[str | None, str]:
    """Return the session (`ses_...`) that a path names and what is done with it, empty for itself."""
    match = _SESSION.match(path)
    return (match[1], match[2] or "") if match is not None else (None, "")


class Routes:
    """The routes that the running opencode declares in its `/doc`."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._routes = [
            (_pattern(template), frozenset(method.upper() for method in methods))
            for template, methods in document.get("paths", {}).items()
        ]

    def have(self, method: str, path: str) -> bool:
        """Whether there is such a route."""
        wanted = "GET" if method == "HEAD" else method
        return any(p.fullmatch(path) and wanted in methods for p, methods in self._routes)


def served_document(document: Mapping[str, Any], own: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return opencode's OpenAPI document reduced to what is served here; `own` are (method, path)."""
    answered = set(own)

    def is_served(method: str, path: str) -> bool:
        if (method, path) in answered:
            return True
        try:
            check_allowed(method, path)
        except PermissionDeniedError:
            return False
        return True

    paths = {}
    for path, operations in document.get("paths", {}).items():
        kept = {m: o for m, o in operations.items() if is_served(m.upper(), path)}
        if kept:
            paths[path] = kept
    return {**document, "paths": paths}


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", template)
    return re.compile("[^/]+".join(re.escape(part) for part in parts))
