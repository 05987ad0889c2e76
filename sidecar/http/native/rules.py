"""Which of opencode's routes are served, and how. Pure.

Wire format: `GET /doc` of opencode 1.18.33. A route that the child declares is forwarded unless it stands
here. Refused is what answers keys, reaches beyond one session, or opens the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PermissionDeniedError,
)

READS = frozenset({"GET", "HEAD"})
_METHODS = READS | {"POST", "PUT", "PATCH", "DELETE"}

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
"""Reads that opencode's own clients need at their start; they show nothing of other sessions."""

_HIDDEN_WRITES = re.compile(r"/global/|/instance/|/mcp(/|$)|/project(/|$)")
"""Writes that reach beyond one session: they abort turns or change what other sessions get."""

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


def may_be_route(path: str) -> bool:
    """Whether a path can be one of opencode's routes."""
    segments = path.split("/")[1:]
    is_plain = all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in segments)
    return is_plain and segments[0] in _FAMILIES


def no_route(method: str, path: str) -> NotFoundError:
    """Return what is answered where there is no route."""
    return NotFoundError(f"no such route: {method} {path[:200]}")


def check_allowed(method: str, path: str) -> None:
    """Raise PermissionDeniedError, with the reason, for what is never forwarded.

    A method that opencode has nowhere is let pass: what `Routes.check` says of it is more to the point.
    """
    if method not in _METHODS:
        return
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


def check_no_workspace(value: object, field: str) -> None:
    """Raise InvalidRequestError for the name of one of opencode's workspaces.

    None can be made here; opencode answers 500 to one that it does not know, and takes it for a new session
    that then cannot be used.
    """
    if value is not None and value != "":
        raise InvalidRequestError(
            f"{field}: opencode's workspaces are not offered by this sidecar; leave it out",
            field=field,
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
        self._routes: dict[str, list[tuple[re.Pattern[str], frozenset[str]]]] = {}
        for template, methods in document.get("paths", {}).items():
            route = _pattern(template), _with_head(method.upper() for method in methods)
            self._routes.setdefault(_family(template), []).append(route)

    def check(self, method: str, path: str) -> None:
        """Raise NotFoundError for a path that is none, MethodNotAllowedError for one with other methods."""
        served: set[str] = set()
        for pattern, methods in self._routes.get(_family(path), ()):
            if pattern.fullmatch(path):
                if method in methods:
                    return
                served |= {each for each in methods if _is_allowed(each, path)}
        if served:
            raise MethodNotAllowedError(method, served)
        raise no_route(method, path)


def served_document(document: Mapping[str, Any], own: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return opencode's OpenAPI document reduced to what is served here; `own` are (method, path)."""
    answered = set(own)

    def is_served(method: str, path: str) -> bool:
        return (method, path) in answered or _is_allowed(method, path)

    paths = {}
    for path, operations in document.get("paths", {}).items():
        kept = {m: o for m, o in operations.items() if is_served(m.upper(), path)}
        if kept:
            paths[path] = kept
    return {**document, "paths": paths}


def _family(path: str) -> str:
    return path.split("/", 2)[1]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", template)
    return re.compile("[^/]+".join(re.escape(part) for part in parts))


def _with_head(methods: Iterable[str]) -> frozenset[str]:
    """HEAD is answered where GET is."""
    declared = frozenset(methods)
    return declared | {"HEAD"} if "GET" in declared else declared


def _is_allowed(method: str, path: str) -> bool:
    try:
        check_allowed(method, path)
    except PermissionDeniedError:
        return False
    return True
