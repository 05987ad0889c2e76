"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.update_architecture import ARCHITECTURE, with_turn
from tools.update_readme import README, with_table

ROOT = README.parent
DOCUMENTS = sorted(
    [README, ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")]
)


def test_the_table_of_settings_is_the_settings_own() -> None:
    """A field that is added or changed shows in the README; `python -m tools.update_readme` writes it."""
    text = README.read_text(encoding="utf-8")

    assert with_table(text) == text


def test_the_diagram_of_a_turn_is_the_machines_own() -> None:
    """A move that is added shows in the document; `python -m tools.update_architecture` writes it."""
    text = ARCHITECTURE.read_text(encoding="utf-8")

    assert with_turn(text) == text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_a_document_names_exists(document: Path) -> None:
    """No dead links into the repository, and no test that is named but not there."""
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    inside = [document.parent / link for link in links if link and "://" not in link]
    named = [
        ROOT / name
        for name in re.findall(r"`((?:tests|bench|sidecar|deploy)/[\w/.-]+\.\w+)`", text)
    ]

    assert [str(path) for path in [*inside, *named] if not path.exists()] == []
