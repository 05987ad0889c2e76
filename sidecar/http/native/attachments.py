"""Files that a prompt of opencode's own API names.

opencode reads them itself, not the session's confined shell: `file:///proc/self/environ` would show the
model, and who asked, the relay's token and opencode's password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sidecar.errors import PermissionDeniedError

_IGNORED_IN_URLS = re.compile(r"[\x00-\x20]")
_MENTION = re.compile(r"@([^\s`,]+)")


def check_files(document: Mapping[str, Any], root: Path, directory: Path) -> None:
    """Raise PermissionDeniedError for a file that is not below `root`. Looks at files.

    `directory` is the session's.
    """
    # opencode looks for what a command mentions in the repository, which may begin above the directory, and
    # from the root of the file system where there is none.
    places = [Path("/"), directory, *(p for p in directory.parents if p.is_relative_to(root))]
    for field, path in _named(document, places):
        try:
            is_inside = path is not None and path.resolve().is_relative_to(root)
        except (OSError, ValueError, RuntimeError):
            is_inside = False
        if not is_inside:
            raise PermissionDeniedError(
                f"{field}: only files below the sidecar's WORKDIR can be attached"
            )


def _named(
    document: Mapping[str, Any], places: Sequence[Path]
) -> Iterator[tuple[str, Path | None]]:
    """Yield the field and the path of each file, None for a path that is written in an odd way."""
    parts = document.get("parts")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        url = part.get("url") if isinstance(part, dict) else None
        if isinstance(url, str) and _IGNORED_IN_URLS.sub("", url).lower().startswith("file:"):
            yield f"parts.{index}.url", _path_of(url)
    arguments = document.get("arguments")  # of a command, which attaches what `@` stands before
    for name in _MENTION.findall(arguments) if isinstance(arguments, str) else ():
        if name.startswith("~"):
            yield "arguments", None
        for place in places:
            if _exists(place / name):
                yield "arguments", place / name


def _path_of(url: str) -> Path | None:
    if not url.startswith("file:///") or "\\" in url or _IGNORED_IN_URLS.search(url):
        return None
    return Path(unquote(urlsplit(url).path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
