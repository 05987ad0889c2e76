"""What opencode's tools may name outside of a session's directory: its permission `external_directory`.

A rule's pattern is compared with the directory of a path, `/etc/*` for `/etc/hosts`, before links are
followed. opencode also asks for paths in the arguments of common shell commands, and reads them as if no `cd`
stood before them: a strict rule would refuse `cd a && cp x ../b`. Shells are held by the kernel.
So denied is what no command needs to name; everything else is checked for file tools by our plug-in, with
links followed, against what is the session's. In a command `~` is the session's own home, and to opencode,
which asks before a shell reads it, the home of opencode itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PERMISSION = "external_directory"

Rule = tuple[str, Literal["allow", "deny"]]

_PROCESSES = ("self", "thread-self", *(f"{digit}*" for digit in range(1, 10)))


def external_rules(private: Path | None) -> list[Rule]:
    """Return pattern and action, the last match wins.

    `private` is what sessions have besides their directories, below opencode's own directory. None: agents
    are not confined.
    """
    rules: list[Rule] = [("*", "allow")]
    if private is not None:
        rules += [(f"/proc/{name}/*", "deny") for name in _PROCESSES]
        own = private.parent
        rules += [("/dev/fd/*", "deny"), (f"{own}/*", "deny")]
        rules += [(f"{place}/*", "allow") for place in (private, own / "home")]
    return rules


OPEN: tuple[Rule, ...] = tuple(external_rules(None))
"""Without confinement."""
