"""Fill in the integrity values that deploy/opencode/package-lock.json lacks, from the registry that npm uses.

npm checks a package against the lock only where the lock has its value, and `npm install` writes no value for
a platform's package that the registry did not serve at that time. This asks for each of them
(`npm view NAME@VERSION dist --json`) and writes the answers. Commit the result.

Exit codes: 0 when every package of linux has a value, for the image is made of those; 1 when one has none,
and it is named; 2 when npm does not run. `python tools/npm_integrity.py [LOCK]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[1] / "deploy" / "opencode" / "package-lock.json"
_NPM_SECONDS = 120


def missing(lock: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the lock's packages without an integrity value, by name."""
    return {
        path.removeprefix("node_modules/"): package
        for path, package in lock["packages"].items()
        if path and "integrity" not in package
    }


def is_needed(package: dict[str, Any]) -> bool:
    """Whether an image could be made of the package: it is for linux with glibc."""
    return "linux" in package.get("os", ["linux"]) and "musl" not in package.get("libc", [])


def served(name: str, version: str) -> dict[str, str] | None:
    """Return the registry's `{integrity, tarball, ...}`, or None where it does not serve the package."""
    done = subprocess.run(
        ["npm", "view", f"{name}@{version}", "dist", "--json"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=_NPM_SECONDS,
    )
    if done.returncode != 0:
        return None
    answer: dict[str, str] = json.loads(done.stdout or "{}")
    return answer if answer.get("integrity", "").startswith("sha512-") else None


def fill(path: Path) -> list[str]:
    """Write what the registry serves into the lock; return the needed packages that still have no value."""
    lock = json.loads(path.read_text())
    left = []
    for name, package in missing(lock).items():
        answer = served(name, package["version"])
        if answer is None:
            left += [name] if is_needed(package) else []
            continue
        rest = {key: value for key, value in package.items() if key != "version"}
        filled = {"version": package["version"], "integrity": answer["integrity"], **rest}
        lock["packages"][f"node_modules/{name}"] = filled
    path.write_text(json.dumps(lock, indent=2) + "\n")
    return left


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    path = Path(arguments[0]) if arguments else LOCK
    try:
        left = fill(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"npm_integrity: {error}", file=sys.stderr)
        return 2
    for name in left:
        print(f"npm_integrity: the registry does not serve {name}: no value", file=sys.stderr)
    return bool(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
