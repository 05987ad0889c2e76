"""The program: `opencode-sidecar`, and `python -m sidecar`."""

from __future__ import annotations

import io
import sys

from sidecar.process_hardening import close_to_same_user


def main() -> None:
    """Run the command line; `serve` alone, which has no options, starts without the parser of options."""
    close_to_same_user()  # every command may have the server's keys in its environment
    _show_what_can_be_shown()
    if sys.argv[1:] == ["serve"]:
        from sidecar import start  # noqa: PLC0415  # one or the other

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
