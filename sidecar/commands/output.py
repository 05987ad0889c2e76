"""What all commands share: exit codes, consoles, JSON, and how a failure is shown."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer
from rich.console import Console

from sidecar.masking import Mask, masked_urls

EXIT_OK = 0
EXIT_FAILED = 1
"""Something that was looked for is wrong: a check failed, the turn failed, one of several lists failed."""
EXIT_USAGE = 2
"""A wrong option, an unknown model or runtime, a setting that cannot be used."""
EXIT_UNAVAILABLE = 3
"""The gateway, the sidecar, opencode or a runtime cannot be reached or gives no usable answer."""
EXIT_REFUSED = 4
"""A key was refused."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells count it."""

_PIPE_WIDTH = 400
"""Columns without a terminal: tables keep one line per row, for grep."""
_SHORTEST_SECRET = 4
"""Shorter ones would mask ordinary words."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class CommandError(Exception):
    """The command cannot do what was asked. `message` is one sentence for people."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr() -> Console:
    """Return the console for remarks and progress; scripts that read stdout never see them."""
    return Console(highlight=False, stderr=True)


def print_json(value: Any) -> None:
    """Print one JSON document, indented for people and fine for programs."""
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not is_unicode) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def finish(command: Callable[[], int], *, as_json: bool) -> None:
    """Run a command and leave with its exit code; failures go to stderr, with `--json` to stdout.

    The JSON of a failure is `{"error": {"message": "...", "exit_code": 3}}`.
    """
    try:
        code = command()
    except CommandError as error:
        message = masked_urls(error.message)
        if as_json:
            print_json({"error": {"message": message, "exit_code": error.exit_code}})
        else:
            typer.echo(f"opencode-sidecar: {message}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def harmless(text: str) -> str:
    """Return `text` without control characters: models and tools must not drive the terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


class Masker:
    """Replaces secrets, by value and in URLs, in whatever is about to be shown."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._mask = Mask(secrets, shortest=_SHORTEST_SECRET)

    def __call__(self, text: str) -> str:
        return masked_urls(self._mask.text(text))


def quiet_logs(*, is_verbose: bool) -> None:
    """Keep the server's log lines off stdout: silent, or with `is_verbose` on stderr."""
    import logging  # noqa: PLC0415  # only the commands that run parts of the server need these

    import structlog  # noqa: PLC0415

    if is_verbose:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    else:
        structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        logging.disable()
