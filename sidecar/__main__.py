"""The program: `opencode-sidecar`, and `python -m sidecar`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; `serve` alone, which has no options, starts without the parser of options."""
    if sys.argv[1:] == ["serve"]:
        from sidecar import start  # noqa: PLC0415  # one or the other

        sys.exit(start.main())
    from sidecar import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()
