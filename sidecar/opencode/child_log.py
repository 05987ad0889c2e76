"""The child's output in our log: one line in, one entry out, secrets masked.

opencode prints logfmt with a `level=`; anything else is passed on as a warning from stderr, as
information from stdout.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog

from sidecar.masking import IN_USE, MASK, Mask, masked_urls
from sidecar.processes.process import LineCallback, Stream

_LEVEL = re.compile(r"\blevel=(DEBUG|INFO|WARN|ERROR)\b")
_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARN": "warning", "ERROR": "warning"}
"""The child's errors are mostly a turn's (a model that refuses), not the service's."""
_KEY_LIKE = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}|(?<=Bearer )\S+|(?<=Basic )\S+")

_log = structlog.get_logger(__name__)


def mask(text: str, secrets: Mask) -> str:
    """Return `text` without the secrets, those in use, and what looks like a key."""
    return _KEY_LIKE.sub(MASK, masked_urls(IN_USE.text(secrets.text(text))))


def relogger(*, secrets: tuple[str, ...], keep: Callable[[str], None]) -> LineCallback:
    """Return a callback that logs a line and hands the masked text to `keep`."""
    own = Mask(secrets)

    def relog(stream: Stream, line: str) -> None:
        text = mask(line, own)
        keep(text)
        match = _LEVEL.search(text)
        level = _LEVELS[match.group(1)] if match else ("info" if stream == "stdout" else "warning")
        getattr(_log, level)("child says", source="child", line=text)

    return relog
