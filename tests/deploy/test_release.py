"""The release workflow: linted, pinned, and it names things that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.image import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
TOOLS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("zizmor", "--offline", "--no-progress", "--persona=pedantic", str(WORKFLOWS)),
        (
            "check-jsonschema",
            "--builtin-schema=vendor.github-workflows",
            str(WORKFLOWS / "release.yml"),
        ),
    ],
    ids=["zizmor", "schema"],
)
def test_linters_find_nothing(command: tuple[str, ...]) -> None:
    """The workflow follows GitHub's schema; permissions, pins, injection and credentials are audited."""
    program, *arguments = command
    done = subprocess.run(
        [TOOLS / program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_are_pinned_by_commit() -> None:
    """Forty digits and the tag that they stood for."""
    uses = re.findall(r"uses: (.+)", (WORKFLOWS / "release.yml").read_text())
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_the_files_that_it_runs_exist() -> None:
    """Scripts are found from the root of the checkout, and can be run."""
    text = (WORKFLOWS / "release.yml").read_text()
    scripts = set(re.findall(r"(?<![\w/.])((?:tools|deploy|\.ci)/[\w/.-]+)", text))
    assert {"tools/version.py", "tools/npm_integrity.py", "deploy/image/smoke.sh"} <= scripts
    assert all((ROOT / script).is_file() for script in scripts)
    for script in scripts:
        if script.endswith(".sh"):
            assert (ROOT / script).stat().st_mode & 0o100
