"""The version, and every file that repeats it.

python tools/version.py               print it: `version` in pyproject.toml
python tools/version.py 0.2.0         write it into every file
python tools/version.py --check       exit with 1 and name the files that say something else
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?")
_REPEATED = {
    "pyproject.toml": r'^version = "(.+)"$',
    "sidecar/__init__.py": r'^__version__ = "(.+)"$',
    "deploy/chart/Chart.yaml": r'^(?:version|appVersion): "?([^"\n]+)"?$',
    "deploy/k8s/overlays/*/kustomization.yaml": r"registry\.example\.com/opencode-sidecar\n    newTag: (.+)$",
}
"""Glob of the files, and where the version is in them."""


def current() -> str:
    """Return the version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def differing() -> list[str]:
    """Return `file: version` for each place that does not say `current()`, or says nothing."""
    wanted = current()
    found = []
    for path, pattern in _places():
        said = re.findall(pattern, path.read_text(), re.M) or ["nothing"]
        found += [f"{path.relative_to(ROOT)}: {text}" for text in said if text != wanted]
    return found


def write(version: str) -> None:
    """Write a version into every place."""
    for path, pattern in _places():
        text = re.sub(
            pattern,
            lambda match: match[0].replace(match[1], version),
            path.read_text(),
            flags=re.M,
        )
        path.write_text(text)


def _places() -> list[tuple[Path, str]]:
    return [(path, pattern) for glob, pattern in _REPEATED.items() for path in ROOT.glob(glob)]


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    match arguments:
        case []:
            print(current())
        case ["--check"]:
            for line in differing():
                print(f"{line}, and pyproject.toml says {current()}", file=sys.stderr)
            return bool(differing())
        case [version] if _VERSION.fullmatch(version):
            write(version)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
