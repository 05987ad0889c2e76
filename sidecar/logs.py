"""Logs: structlog, JSON lines in production, a readable console on a terminal.

Everything on stdout is a log line. Secrets are masked here once more, by value and in URLs, as the last step
before rendering: whatever slipped into a message or a traceback does not get out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog

from sidecar.config import LogSettings
from sidecar.masking import IN_USE, Mask, masked_urls


class SecretMasker:
    """A structlog processor that replaces secrets in every string of an event: those it is given, and those
    that are in use.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._mask = Mask(secrets)

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for key, value in event.items():
            event[key] = self._masked(value)
        return event

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return masked_urls(IN_USE.text(self._mask.text(value)))
        if isinstance(value, dict):
            return {key: self._masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(item) for item in value]
        return value


def configure(settings: LogSettings, *, secrets: Iterable[str] = ()) -> None:
    """Set up structlog and the standard library's logging behind it."""
    masker = SecretMasker(secrets)
    is_console = settings.format == "console" or (settings.format == "auto" and sys.stdout.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks become text before the masker sees them, on a console too: a rich one is drawn after it
    # and shows the local variables.
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer()
    )
    ending: list[Any] = [structlog.processors.format_exc_info, masker, renderer]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
