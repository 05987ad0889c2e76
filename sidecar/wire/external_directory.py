"""What opencode's own tools may name outside of a session's directory: its permission `external_directory`.

The rule's pattern is compared with the directory of a path, `/etc/*` for `/etc/hosts`, before links are
followed; where they lead is checked by our plug-in. It also covers paths in the arguments of common shell
commands (`cat`, `cp`, `cd`): what agents may read is allowed here so that these are not refused, and the
shells themselves are held by the kernel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PERMISSION = "external_directory"

Rule = tuple[str, Literal["allow", "deny"]]

_READABLE = ("bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sbin", "sys", "usr")
_TELLING = ("/dev/*/*", "/proc/*/*")
"""Of processes and their open files; `/proc/cpuinfo` and `/dev/null` are not among them."""


def external_rules(private: Path | None) -> list[Rule]:
    """Return pattern and action, the last match wins. `private` None: agents are not confined."""
    if private is None:
        return [("*", "allow")]
    rules: list[Rule] = [("*", "deny")]
    rules += [(f"/{name}/*", "allow") for name in _READABLE]
    rules += [(pattern, "deny") for pattern in _TELLING]
    return [*rules, (f"{private}/*", "allow")]


OPEN: tuple[Rule, ...] = tuple(external_rules(None))
"""Without confinement."""
