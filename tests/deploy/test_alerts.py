"""Prometheus's own tool reads the alert rules and runs their unit tests."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def promtool() -> str:
    """Return the tool's path; getting it may take a download."""
    answer = subprocess.run(
        [ROOT / "tools/promtool.sh"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")]
)
def test_promtool_accepts_the_alert_rules(promtool: str, arguments: tuple[str, ...]) -> None:
    """The rules parse, and fire for what they are meant for and not for what is harmless."""
    answer = subprocess.run(
        [promtool, *arguments],
        cwd=ROOT / "deploy/observability",
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "SUCCESS" in answer.stdout
