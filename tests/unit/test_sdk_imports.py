"""The SDK stands alone: importing it pulls in neither the server nor the server's libraries."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import sidecar.sdk

ROOT = Path(__file__).resolve().parents[2]
ALLOWED_PREFIXES = ("sidecar.sdk", "sidecar.errors", "sidecar.proxies", "sidecar.wire")
ALLOWED_LIBRARIES = frozenset({"aiohttp", "pydantic"})
FORBIDDEN = ("aiohttp.web", "structlog", "sqlite3", "typer", "rich", "psutil", "cryptography")


def test_importing_the_sdk_loads_no_server() -> None:
    """A fresh interpreter has no server module in `sys.modules` after the import."""
    code = "import json, sys, sidecar.sdk; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)

    ours = [m for m in loaded if m.startswith("sidecar.") and not m.startswith(ALLOWED_PREFIXES)]
    assert ours == []
    assert [m for m in FORBIDDEN if m in loaded] == []
    assert "sidecar.sdk.client" in loaded


def test_the_sources_import_only_what_the_rule_allows() -> None:
    """`sidecar.sdk` imports itself, errors, proxies and wire of ours, aiohttp, pydantic and the stdlib."""
    found = set()
    for path in (ROOT / "sidecar" / "sdk").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                found.add(node.module or "")

    foreign = {
        name
        for name in found
        if not name.startswith(ALLOWED_PREFIXES)
        and name.partition(".")[0] not in sys.stdlib_module_names | ALLOWED_LIBRARIES
    }
    assert foreign == set()
    assert "aiohttp" in found


def test_every_public_name_exists_and_is_documented() -> None:
    """`__all__` is sorted, complete, and each name has a docstring of its own."""
    names = sidecar.sdk.__all__
    assert names == sorted(names)
    assert [n for n in names if not getattr(sidecar.sdk, n).__doc__] == []
