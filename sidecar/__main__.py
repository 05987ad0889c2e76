"""The program: `opencode-sidecar`, and `python -m sidecar`."""

from __future__ import annotations

import io
import sys

from sidecar import start


def main() -> None:
    """Run the command line; `serve` alone, which has no options, starts without the parser of options."""
    is_server = sys.argv[1:] == ["serve"]
    if is_server:
        start.leave_on_signals()  # before anything else is loaded
    from sidecar.process_hardening import close_to_same_user  # noqa: PLC0415  # signals first

    close_to_same_user()  # every command may have the server's keys in its environment
    _show_what_can_be_shown()
    if is_server:
        sys.exit(start.main())
    from sidecar import cli  # noqa: PLC0415

    cli.main()


def _show_what_can_be_shown() -> None:
    """Write `?` for what the terminal's encoding lacks: a check mark must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
